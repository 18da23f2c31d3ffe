"""Make docs/results.md from records of finished and tested runs: `python scripts/results.py --help`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

# works from a clone that is not installed, too
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mhsvm.cli.main import run
from mhsvm.cli.parser import CommandParser
from mhsvm.text_file import read_text, write_text

if TYPE_CHECKING:
    from results_records import Record

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "scripts" / "records"


def main(argv: Sequence[str] | None = None) -> int:
    """Put the results of runs into a page, beside the published numbers."""
    parser = CommandParser(
        prog="python scripts/results.py", description=main.__doc__, examples=("", "results/ultralight_isic2017 --keep")
    )
    parser.add_argument(
        "runs",
        nargs="*",
        type=Path,
        metavar="FOLDER",
        help="run folders, or folders of them; default: the records in scripts/records/runs.jsonl",
    )
    parser.add_argument("--keep", action="store_true", help="add the runs to the records, and show all records")
    parser.add_argument(
        "--records", type=Path, default=RECORDS / "runs.jsonl", metavar="FILE", help="default: scripts/records/…"
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "results.md", metavar="FILE", help="default: docs/results.md"
    )
    parser.add_argument(
        "--notes", type=Path, default=RECORDS / "notes.md", metavar="FILE", help="text for the end of the page"
    )
    arguments = parser.parse_args(argv)
    from results_page import read_published, results_page

    records = _collect(arguments)
    page = results_page(records, read_published(RECORDS / "published.csv"))
    if arguments.notes.is_file():
        page += "\n" + read_text(arguments.notes)
    write_text(arguments.out, page)
    print(f"{sum(len(record.tests) for record in records)} tests in {arguments.out}")
    return 0


def _collect(arguments: argparse.Namespace) -> list[Record]:
    """Records of the given folders; with --keep, or without folders, those of the file."""
    from results_records import find_runs, read_records, read_run, write_records

    given = []
    for folder in find_runs(arguments.runs):
        record, reason = read_run(folder)
        if record is None:
            print(f"left out: {folder}: {reason}", file=sys.stderr)
        else:
            given.append(record)
    if arguments.runs and not given:
        raise ValueError("none of the runs is finished and tested: no page was made")
    if arguments.runs and not arguments.keep:
        return given
    kept = read_records(arguments.records) if arguments.records.is_file() else []
    # a run that was tested again replaces its record
    records = list({record.run: record for record in [*kept, *given]}.values())
    if given:
        write_records(arguments.records, records)
    return sorted(records, key=lambda record: record.run)


if __name__ == "__main__":
    raise SystemExit(run(main))
