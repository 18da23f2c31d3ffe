"""`mhsvm compare RUN RUN …`: the better model, by how much, on which images, and whether it could be chance."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Compare tests of runs, or scores of masks, on their common images; all others are compared to the first one."""
    arguments = parser().parse_args(argv)
    from mhsvm.report.comparison import compare
    from mhsvm.report.comparison_folder import RESULTS, write_comparison
    from mhsvm.report.comparison_text import comparison_table, rater_tables, winner_lines
    from mhsvm.report.measured_run import read_runs

    tested = read_runs(arguments.runs, test=arguments.test)
    folder = arguments.folder or Path("results") / "comparisons" / _folder_name([run.name for run in tested])
    RESULTS.check(folder)
    comparison = compare(tested)
    write_comparison(folder, comparison)
    for run in tested:
        print(f"{run.name}: {run.folder}")
    tables = (comparison_table(comparison), *rater_tables(comparison))
    for line in (*comparison.notes, "", *tables, "", *winner_lines(comparison)):
        print(line)
    print(f"plots, cases and metrics: {folder}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("compare"),
        description=main.__doc__,
        examples=(
            "results/ours results/baseline",
            "results/ours results/baseline --test isic2017-wu-sorted --out comparison",
        ),
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, of tests or of scores; two or more"
    )
    parser.add_argument("--test", metavar="NAME", help="which of the runs' tests, such as isic2017-wu-sorted")
    parser.add_argument(
        "--out", dest="folder", type=Path, metavar="FOLDER", help="default: results/comparisons/ and the names"
    )
    return parser


def _folder_name(names: Sequence[str]) -> str:
    return "-vs-".join(re.sub(r"[^\w.-]+", "-", name).strip("-") for name in names)
