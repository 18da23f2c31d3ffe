"""`routegen`: write the scan routes of an image size in the published file format."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch

from mhsvm.files import replace_when_complete
from mhsvm.routes import published_tables

DESCRIPTION = "Write the scan routes of an image size in the published file format."


def main(argv: Sequence[str] | None = None) -> int:
    """Write the route tables of one image size and print their hierarchy.

    Raises:
        ValueError: The size does not suit the depth; it names the nearest sizes that do.
    """
    # `--h` is the height: only `-h` and the whole `--help` ask for help.
    parser = argparse.ArgumentParser(prog="mhsvm routegen", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("--w", type=int, required=True, help="width of the image in pixels")
    parser.add_argument("--h", type=int, required=True, help="height of the image in pixels")
    parser.add_argument("--depth", type=int, default=4, help="number of encoder stages (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file to write (default: routes_HxW_depthD.pt)")
    arguments = parser.parse_args(argv)

    h, w, depth = arguments.h, arguments.w, arguments.depth
    stages = published_tables(h, w, depth=depth)
    out = arguments.out or Path(f"routes_{h}x{w}_depth{depth}.pt")
    # Given a path, torch would write that temporary name into the file.
    with replace_when_complete(out) as partial, partial.open("wb") as file:
        torch.save(stages, file)

    print(f"image {h} x {w}, patterns C X S Z, two routes each")
    for i in range(depth):
        rows, cols = h // (4 * 2**i), w // (4 * 2**i)
        print(f"stage {i}: map {rows} x {cols}, {rows * cols} cells")
    print(f"written: {out}")
    return 0
