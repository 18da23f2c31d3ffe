"""`mhsvm draw-routes`: plot the routes of a scan pattern."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.options import positive
from mhsvm.cli.parser import CommandParser, program

_FORMATS = ("png", "svg", "pdf")


def main(argv: Sequence[str] | None = None) -> int:
    """Plot the routes along which a pattern walks a map."""
    arguments = parser().parse_args(argv)
    format = arguments.out.suffix.lower().removeprefix(".")
    if format not in _FORMATS:
        raise ValueError(f"--out is a file .{', .'.join(_FORMATS)}, not {str(arguments.out)!r}")
    from mhsvm.files import replace_when_complete
    from mhsvm.report.route_plots import draw_patterns
    from mhsvm.routes import list_patterns

    figure = draw_patterns(arguments.pattern or list_patterns(), arguments.h, arguments.w)
    with replace_when_complete(arguments.out) as partial:
        figure.savefig(partial, format=format, dpi=120)
    print(f"written: {arguments.out}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    # `--h` is the height: only `-h` and the whole `--help` ask for help
    parser = CommandParser(
        prog=program("draw-routes"),
        description=main.__doc__,
        examples=("--pattern C X --height 8 --width 8 --out routes.png",),
    )
    parser.add_argument("--pattern", nargs="+", metavar="NAME", help="default: all, such as C, X, S, Z")
    parser.add_argument(
        "--height", "--h", dest="h", type=positive, default=16, help="rows of the map (default: %(default)s)"
    )
    parser.add_argument(
        "--width", "--w", dest="w", type=positive, default=16, help="columns of the map (default: %(default)s)"
    )
    parser.add_argument("--out", type=Path, required=True, help=f"file to write: .{', .'.join(_FORMATS)}")
    return parser
