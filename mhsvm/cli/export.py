"""`mhsvm export --checkpoint FILE --format NAME --out FILE`: a trained model as a file that needs no Python."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Write a trained model as a file that needs no Python, run it there, and compare it with the model in float64."""
    arguments = parser().parse_args(argv)
    import torch

    from mhsvm.assemble.exporting import export_trained
    from mhsvm.assemble.trained import load_trained
    from mhsvm.models.pretrained import find_pretrained

    path = arguments.checkpoint if arguments.weights is None else find_pretrained(arguments.weights).path
    trained = load_trained(path, plugins=arguments.plugins, device=torch.device("cpu"))
    for note in trained.notes:
        print(f"note: {note}")
    exported = export_trained(
        trained,
        arguments.format,
        arguments.out,
        half=arguments.half,
        threshold=arguments.threshold,
        images=arguments.images,
    )
    for file in exported.files:
        print(f"{file}: {file.stat().st_size / 1e3:.0f} KB")
    print(exported.comparison.line() if exported.comparison else f"not run: {exported.not_run}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("export"),
        description=main.__doc__,
        examples=("--weights isic2017-wu-sorted --format c --out segment.c",),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", "--p", metavar="FILE", help="a checkpoint of a training, or a published one")
    source.add_argument("--weights", metavar="NAME", help="weights that come with the package")
    parser.add_argument("--format", required=True, metavar="NAME", help="c: a header and a source for any C compiler")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="the file to write or replace")
    parser.add_argument("--half", action="store_true", help="store the weights in 16 bits")
    parser.add_argument("--threshold", type=float, metavar="T", help="default: the checkpoint's")
    parser.add_argument("--images", nargs="+", default=(), metavar="IMAGE", help="compare on these images too")
    parser.add_argument("--plugins", nargs="+", default=(), metavar="MODULE", help="modules that a checkpoint names")
    return parser
