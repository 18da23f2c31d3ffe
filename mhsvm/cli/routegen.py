"""`mhsvm routegen`: write the scan routes of an image size in the published file format."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Write the scan routes of an image size in the published file format."""
    arguments = parser().parse_args(argv)
    import torch

    from mhsvm.files import replace_when_complete
    from mhsvm.routes import published_tables

    h, w, depth = arguments.h, arguments.w, arguments.depth
    stages = published_tables(h, w, depth=depth)
    out = arguments.out or Path(f"routes_{h}x{w}_depth{depth}.pt")
    # given a path, torch would write the temporary name into the file
    with replace_when_complete(out) as partial, partial.open("wb") as file:
        torch.save(stages, file)

    print(f"image {h} x {w}, patterns C X S Z, two routes each")
    for i in range(depth):
        rows, cols = h // (4 * 2**i), w // (4 * 2**i)
        print(f"stage {i}: map {rows} x {cols}, {rows * cols} cells")
    print(f"written: {out}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    # `--h` is the height: only `-h` and the whole `--help` ask for help
    parser = CommandParser(
        prog=program("routegen"),
        description=main.__doc__,
        examples=("--width 512 --height 512",),
    )
    parser.add_argument("--width", "--w", dest="w", type=int, required=True, help="width of the image in pixels")
    parser.add_argument("--height", "--h", dest="h", type=int, required=True, help="height of the image in pixels")
    parser.add_argument("--depth", type=int, default=4, help="number of encoder stages (default: %(default)s)")
    parser.add_argument("--out", type=Path, help="file to write (default: routes_HxW_depthD.pt)")
    return parser
