"""`python -m tests.faults NAME --count N`: run a program and print its counts; without a name, list the programs."""

import argparse
import importlib
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.faults.outcomes import bad_outcomes, format_counts

# each module of this folder that is neither a test nor shared
PROGRAMS = tuple(
    sorted(
        path.stem
        for path in Path(__file__).parent.glob("*.py")
        if not path.stem.startswith(("_", "test_")) and path.stem != "outcomes"
    )
)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("name", nargs="?", choices=PROGRAMS)
    parser.add_argument("--count", type=int, default=200, help="faults of each kind")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args(argv)
    modules = {name: importlib.import_module(f"tests.faults.{name}") for name in PROGRAMS}
    if arguments.name is None:
        for name, module in modules.items():
            print(f"{name:<12}{module.__doc__.splitlines()[0]}")
        return 0
    with tempfile.TemporaryDirectory() as folder:
        counts = modules[arguments.name].run(count=arguments.count, seed=arguments.seed, folder=Path(folder))
    print(format_counts(counts))
    return 1 if any(map(bad_outcomes, counts.values())) else 0


if __name__ == "__main__":
    sys.exit(main())
