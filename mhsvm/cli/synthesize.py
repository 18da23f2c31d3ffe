"""`mhsvm synthesize`: generate a small data set that looks like dermoscopy."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.options import size
from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Generate a small data set that looks like dermoscopy."""
    arguments = parser().parse_args(argv)
    from mhsvm.synthetic import write_synthetic_set

    write_synthetic_set(
        layout=arguments.layout,
        num=arguments.num,
        seed=arguments.seed,
        out=arguments.out,
        size=arguments.size,
        num_raters=arguments.num_raters,
    )
    print(f"{arguments.num} images in {arguments.out}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("synthesize"),
        description=main.__doc__,
        examples=("--layout folder --num 60 --out data/synthetic",),
    )
    parser.add_argument(
        "--layout", required=True, metavar="NAME", help="a layout of folders and names, such as isic2017, ph2 or folder"
    )
    parser.add_argument("--num", required=True, type=int, help="number of images")
    parser.add_argument("--seed", default=0, type=int, help="another seed makes other images (default: 0)")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--size", default="256", type=size, metavar="S|HxW", help="in pixels, default 256")
    parser.add_argument(
        "--raters",
        dest="num_raters",
        default=1,
        type=int,
        metavar="N",
        help="masks of N raters an image, in layout folder: masks/rater1, masks/rater2, …",
    )
    return parser
