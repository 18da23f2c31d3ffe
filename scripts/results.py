"""Make docs/results.md from the run folders of finished and tested trainings: `python scripts/results.py --help`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# Works from a clone that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mhsvm.cli.main import run
from mhsvm.data.atomic import replace_when_complete
from mhsvm.report.results import find_runs, read_published, read_run, results_page

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main(argv: Sequence[str] | None = None) -> int:
    """Put the results of run folders into a page, beside the published numbers."""
    parser = argparse.ArgumentParser(prog="results.py", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("runs", nargs="+", type=Path, metavar="FOLDER", help="run folders, or folders of such")
    parser.add_argument(
        "--out", type=Path, default=DOCS / "results.md", metavar="FILE", help="default: docs/results.md"
    )
    parser.add_argument(
        "--notes", type=Path, default=DOCS / "results_notes.md", metavar="FILE", help="text for the page's end"
    )
    arguments = parser.parse_args(argv)
    tests = []
    for folder in find_runs(arguments.runs):
        found, reason = read_run(folder)
        if reason:
            print(f"left out: {folder}: {reason}", file=sys.stderr)
        tests += found
    if not tests:
        raise ValueError("none of the runs is finished and tested: no page was made")
    page = results_page(tests, read_published(DOCS / "published.csv"))
    if arguments.notes.is_file():
        page += "\n" + arguments.notes.read_text(encoding="utf-8")
    with replace_when_complete(arguments.out) as partial:
        partial.write_text(page, encoding="utf-8")
    print(f"{len(tests)} tests in {arguments.out}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run(main))
