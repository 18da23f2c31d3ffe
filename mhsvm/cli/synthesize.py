"""`mhsvm synthesize`: draw a small data set that looks like dermoscopy."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.options import size
from mhsvm.synthetic import list_layouts, write_synthetic_set


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mhsvm synthesize", description=__doc__)
    parser.add_argument("--layout", required=True, choices=list_layouts(), help="whose folders and names")
    parser.add_argument("--num", required=True, type=int, help="number of images")
    parser.add_argument("--seed", default=0, type=int, help="another seed draws other images (default: 0)")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--size", default="256", type=size, metavar="S|HxW", help="in pixels, default 256")
    arguments = parser.parse_args(argv)
    write_synthetic_set(
        layout=arguments.layout,
        num=arguments.num,
        seed=arguments.seed,
        out=arguments.out,
        size=arguments.size,
    )
    print(f"{arguments.num} images in {arguments.out}")
    return 0
