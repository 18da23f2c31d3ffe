"""`mhsvm report RUN`: a page with the results of a test and its worst cases."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Write report.html, one file that needs nothing else, into the folder of each test of a run."""
    arguments = parser().parse_args(argv)
    from mhsvm.report.measured_run import find_tests, read_runs
    from mhsvm.report.page import make_page
    from mhsvm.text_file import write_text

    tests = find_tests(arguments.run)
    if arguments.test is not None:
        (chosen,) = read_runs([arguments.run], test=arguments.test)
        tests = {chosen.folder.name: chosen.folder}
    if arguments.out is not None and len(tests) > 1:
        raise ValueError(f"--out is for the page of one test; choose with --test one of {', '.join(tests)}")
    for folder in tests.values():
        (run,) = read_runs([folder])
        path = arguments.out or folder / "report.html"
        page = make_page(run, arguments.data)
        write_text(path, page)
        print(f"{path}: {len(run.scores)} images, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("report"),
        description=main.__doc__,
        examples=("results/ultralight_isic2017",),
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run or of one of its tests")
    parser.add_argument("--test", metavar="NAME", help="only this one of its tests, such as isic2017-wu-sorted")
    parser.add_argument(
        "--data", "--d", dest="data", metavar="SET", help="the set of the test; default: its recorded place, or data/"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the test's folder")
    return parser
