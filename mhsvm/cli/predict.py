"""`mhsvm predict --checkpoint FILE … --source IMAGES --out FOLDER`: segment images of your own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from mhsvm.cli.options import add_model_options
from mhsvm.cli.parser import CommandParser, program

if TYPE_CHECKING:
    from mhsvm.assemble import TrainedPredictor
    from mhsvm.assemble.exported_models import ExportedPredictor
    from mhsvm.inference.found_images import FoundImages


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images: masks at each image's own size, overlays to look at, and a table of areas."""
    arguments = parser().parse_args(argv)
    from mhsvm.inference.found_images import open_images
    from mhsvm.models.pretrained import find_pretrained

    paths = arguments.checkpoints if arguments.weights is None else [find_pretrained(arguments.weights).path]
    with open_images(arguments.source) as found:
        return _predict(arguments, paths, found)


def _predict(arguments: argparse.Namespace, paths: Sequence[Path], found: FoundImages) -> int:
    from mhsvm.assemble import open_predictor
    from mhsvm.inference.image_folder import predict_images
    from mhsvm.inference.prediction_folder import PredictionFolder

    images = found.images
    predictor = open_predictor(
        paths,
        device=arguments.device,
        batch_size=arguments.batch_size,
        gate_threshold=arguments.gate_threshold,
        backend=arguments.backend,
        plugins=arguments.plugins,
        threshold=arguments.threshold,
        augmentation=arguments.augmentation,
        largest_component=arguments.largest_component,
        fill_holes=arguments.fill_holes,
    )
    members = predictor.members
    for note in dict.fromkeys(note for member in members for note in member.notes):
        print(f"note: {note}")
    for line in found.left_out:
        print(f"left out: {line}")
    folder = PredictionFolder(arguments.folder, _settings(arguments, predictor))
    num_done = sum(folder.is_done(image.image, name=image.name, file=image.file) for image in images)
    if folder.num_damaged:
        print(f"{folder.num_damaged} records of {folder.path} are damaged; their images are done again")
    if num_done:
        print(f"{num_done} of {len(images)} images are done and skipped")
    failed = predict_images(
        predictor,
        images,
        folder,
        num_classes=members[0].num_classes,
        batch_size=arguments.batch_size or members[0].batch_size,
        probabilities=arguments.probabilities,
        contours=arguments.contours,
        progress=True,
    )
    print(f"{len(images) - len(failed)} masks in {folder.path / 'masks'}, over their images in overlays/")
    num_failed = len(failed) + found.num_unread
    if num_failed:
        print(f"error: {num_failed} of {len(images) + found.num_unread} images could not be read:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in [*failed, *found.unread]), file=sys.stderr)
    if found.unsound:
        print("error: files that cannot be read:", *found.unsound, sep="\n", file=sys.stderr)
    return 1 if num_failed or found.unsound else 0


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = CommandParser(
        prog=program("predict"),
        description=f"{main.__doc__} The same command continues where it was stopped.",
        examples=(
            "--weights isic2017-wu-sorted --source photos --out predicted",
            "--checkpoint fold0/best.pt fold1/best.pt --source photos --out mean --tta flips",
        ),
    )
    trained = parser.add_mutually_exclusive_group(required=True)
    trained.add_argument("--weights", metavar="NAME", help="weights that come with mhsvm; an unknown name lists them")
    trained.add_argument(
        "--checkpoint",
        "--p",
        dest="checkpoints",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="checkpoint, ours or a published one, or a model in ONNX; the probabilities of several are averaged",
    )
    parser.add_argument(
        "--source",
        required=True,
        nargs="+",
        type=Path,
        metavar="PATH",
        help="images, folders, unextracted zip files, and text files with one path a line, in any mix",
    )
    parser.add_argument(
        "--out", dest="folder", required=True, type=Path, metavar="FOLDER", help="new folder for masks/ and overlays/"
    )
    parser.add_argument(
        "--tta",
        dest="augmentation",
        choices=("none", "flips", "turns"),
        default="none",
        help="average over 4 flips, or over 8 flips and rotations (turns); default none",
    )
    parser.add_argument("--threshold", type=float, metavar="T", help="probability of lesion; default: the checkpoint's")
    parser.add_argument("--largest-component", action="store_true", help="keep the largest region of each class")
    parser.add_argument("--fill-holes", action="store_true", help="fill background that a region encloses")
    parser.add_argument("--probabilities", action="store_true", help="write probabilities/ as 8-bit PNG")
    parser.add_argument("--contours", action="store_true", help="write contours/ as polygons (JSON) and PNG")
    add_model_options(parser)
    return parser


def _settings(arguments: argparse.Namespace, predictor: TrainedPredictor | ExportedPredictor) -> dict:
    """All settings that the results depend on."""
    from mhsvm.prepare.archive import readable

    sources = [readable(str(path.resolve())) for path in arguments.source]
    files = [member.describe() for member in predictor.members]
    return {
        "source": sources[0] if len(sources) == 1 else sources,
        "checkpoints": [f"{file['file']} {file['sha256'][:16]}" for file in files],
        "gate threshold": arguments.gate_threshold,
        "threshold": predictor.threshold,
        "tta": arguments.augmentation,
        "largest component": arguments.largest_component,
        "fill holes": arguments.fill_holes,
        "probabilities": arguments.probabilities,
        "contours": arguments.contours,
    }
