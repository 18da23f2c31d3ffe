"""Put a trained checkpoint into the package: `python scripts/release_weights.py --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Works from a clone that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from release import add_pretrained

from mhsvm.cli.main import run


def main(argv: Sequence[str] | None = None) -> int:
    """Put a training's weights into mhsvm/models/weights, for `create_model(pretrained=NAME)`."""
    parser = argparse.ArgumentParser(prog="release_weights.py", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("checkpoint", type=Path, metavar="FILE", help="checkpoints/best.pt of a run")
    parser.add_argument("--name", required=True, help="such as isic2017-wu-sorted")
    parser.add_argument("--licence", required=True, help="of the data that it was trained on, such as CC-0")
    arguments = parser.parse_args(argv)
    row = add_pretrained(arguments.checkpoint, name=arguments.name, licence=arguments.licence)
    print(f"{row.path}: {row.model}, trained on {row.data}, {row.split} ({row.split_hash[:12]}), {row.licence}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
