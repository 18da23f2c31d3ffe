"""Make docs/results.md from the run folders of finished and tested trainings: `python scripts/results.py --help`."""

import argparse
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

# Works from a clone that is not installed, too.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from results_page import find_runs, read_published, read_run, results_page

from mhsvm.cli.main import run
from mhsvm.files import replace_when_complete

DOCS = Path(__file__).resolve().parents[1] / "docs"
# What the page is made from: all of a run but weights, predictions and pictures.
RECORDS = ("config.yaml", "metrics.jsonl", "times.jsonl", "tests/*/summary.json")


def main(argv: Sequence[str] | None = None) -> int:
    """Put the results of run folders into a page, beside the published numbers."""
    parser = argparse.ArgumentParser(prog="results.py", description=main.__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs",
        nargs="*",
        default=[DOCS / "runs"],
        type=Path,
        metavar="FOLDER",
        help="run folders, or folders of such; default: docs/runs",
    )
    parser.add_argument("--keep", action="store_true", help="copy the runs' records to docs/runs, and take all there")
    parser.add_argument(
        "--out", type=Path, default=DOCS / "results.md", metavar="FILE", help="default: docs/results.md"
    )
    parser.add_argument(
        "--notes", type=Path, default=DOCS / "results_notes.md", metavar="FILE", help="text for the page's end"
    )
    arguments = parser.parse_args(argv)
    folders = find_runs(arguments.runs)
    if arguments.keep:
        keep(folders, DOCS / "runs")
        folders = find_runs([DOCS / "runs"])
    tests = []
    for folder in folders:
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


def keep(folders: Sequence[Path], target: Path) -> None:
    """Copy the records of finished and tested runs, each to a folder with the names of its own and its parent's."""
    for folder in folders:
        if not read_run(folder)[0]:
            continue
        for file in sorted(file for pattern in RECORDS for file in folder.glob(pattern)):
            copy = target / folder.resolve().parent.name / folder.resolve().name / file.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


if __name__ == "__main__":
    raise SystemExit(run(main))
