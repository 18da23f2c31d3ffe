"""`mhsvm export --checkpoint FILE --format NAME --out PATH`: a trained model as a file that needs no Python."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mhsvm.cli.parser import CommandParser, program

# Names and purposes of `mhsvm.export.FORMATS`: the help imports no library, and a test compares them.
FORMATS = {
    "c": "one C header and one source, for phones and microcontrollers",
    "onnx": "one file for ONNX Runtime, browsers, OpenVINO and others",
    "html": "one page for any browser, without a server",
    "site": "the page as a folder for a web server, installable, works offline after the first visit",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Write a trained model as a file that needs no Python, run it there, and compare it with the model in float64."""
    arguments = parser().parse_args(argv)
    import torch

    from mhsvm.assemble.exporting import export_trained
    from mhsvm.assemble.trained import load_trained
    from mhsvm.models.pretrained import find_checkpoint, find_pretrained

    path = arguments.checkpoint if arguments.weights is None else find_pretrained(arguments.weights).path
    paths = [path] if arguments.beside is None else [path, find_checkpoint(arguments.beside)]
    models = [load_trained(each, plugins=arguments.plugins, device=torch.device("cpu")) for each in paths]
    for note in dict.fromkeys(note for each in models for note in each.notes):
        print(f"note: {note}")
    exported = export_trained(
        models[0],
        arguments.format,
        arguments.folder,
        half=arguments.half,
        threshold=arguments.threshold,
        beside=models[1] if arguments.beside is not None else None,
        scan=arguments.scan,
        images=arguments.images,
    )
    for file in exported.files:
        print(f"{file}: {file.stat().st_size / 1e3:.0f} KB")
    print(exported.comparison.line() if exported.comparison else f"not run: {exported.not_run}")
    for comparison in exported.beside:
        print(f"the model beside it: {comparison.line()}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("export"),
        description=main.__doc__,
        examples=(
            "--weights isic2017-wu-sorted --format html --out segment.html",
            "--weights isic2017-wu-sorted --format onnx --out segment.onnx",
            "--weights isic2017-wu-sorted --format c --out segment.c",
        ),
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", "--p", metavar="FILE", help="a checkpoint of a training, or a published one")
    source.add_argument("--weights", metavar="NAME", help="weights that come with the package")
    formats = "; ".join(f"{name}: {purpose}" for name, purpose in FORMATS.items())
    parser.add_argument("--format", required=True, metavar="NAME", help=formats)
    # errors about folders of results quote this name
    out = parser.add_argument("--out", dest="folder", required=True, type=Path, metavar="PATH")
    out.help = "the file or folder to write"
    parser.add_argument("--half", action="store_true", help="store the weights in 16 bits")
    parser.add_argument("--threshold", type=float, metavar="T", help="default: the checkpoint's")
    parser.add_argument("--beside", metavar="FILE|NAME", help="html, site: a second model on the page")
    parser.add_argument("--scan", action="store_true", help="onnx: smaller and faster, for ONNX Runtime alone")
    parser.add_argument("--images", nargs="+", default=(), metavar="IMAGE", help="compare on these images too")
    parser.add_argument("--plugins", nargs="+", default=(), metavar="MODULE", help="modules that a checkpoint names")
    return parser
