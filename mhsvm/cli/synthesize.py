"""`mhsvm synthesize`: draw a small data set that looks like dermoscopy."""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mhsvm.data.synthetic import list_layouts, write_synthetic_set


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="mhsvm synthesize", description=__doc__)
    parser.add_argument("--layout", required=True, choices=list_layouts(), help="whose folders and names")
    parser.add_argument("--num", required=True, type=int, help="number of images")
    parser.add_argument("--seed", default=0, type=int, help="another seed draws other images (default: 0)")
    parser.add_argument("--out", required=True, type=Path, help="folder to make")
    parser.add_argument("--size", default="256", help="side of the images, or HxW, pixels (default: 256)")
    arguments = parser.parse_args(argv)
    write_synthetic_set(
        layout=arguments.layout,
        num=arguments.num,
        seed=arguments.seed,
        out=arguments.out,
        size=_parse_size(arguments.size),
    )
    print(f"{arguments.num} images in {arguments.out}")
    return 0


def _parse_size(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)(?:[xX](\d+))?", text)
    if not match:
        raise ValueError(f"--size is one number or HxW, such as 256 or 192x256, got {text!r}")
    return int(match[1]), int(match[2] or match[1])
