"""`mhsvm predict --p CHECKPOINT … --source IMAGES --out FOLDER`: segment images of your own."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mhsvm.assemble import Trained, build_device, build_predictor, load_trained
from mhsvm.cli.options import add_model_options
from mhsvm.inference.contours import find_polygons
from mhsvm.inference.postprocessing import count_regions
from mhsvm.inference.prediction_folder import PredictionFolder
from mhsvm.inference.predictor import Prediction, Predictor, read_rgb
from mhsvm.inference.tta import list_augmentations
from mhsvm.models.pretrained import find_pretrained
from mhsvm.prepare.pairs import EXTENSIONS
from mhsvm.system import num_cores
from mhsvm.threads import in_order

# hidden files, and the segments of pictures that ISIC's archives hold beside them
_NO_PICTURE = re.compile(r"^\.|_superpixels\.")


class _Picture(NamedTuple):
    """An image that is to be predicted: its file, the path in its source, and that of its results."""

    path: Path
    image: str
    name: PurePath


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images: masks at each image's own size, overlays to look at, and a table of areas."""
    arguments = _parse(argv)
    if arguments.weights is not None:
        arguments.p = [find_pretrained(arguments.weights).path]
    pictures = _find_pictures(arguments.source)
    device = build_device(arguments.device)
    members = [
        load_trained(path, gate_threshold=arguments.gate_threshold, backend=arguments.backend, device=device)
        for path in arguments.p
    ]
    batch_size = arguments.batch_size or members[0].batch_size
    predictor = build_predictor(
        members,
        device,
        batch_size=batch_size,
        threshold=arguments.threshold,
        augmentation=arguments.tta,
        largest_component=arguments.largest_component,
        fill_holes=arguments.fill_holes,
    )
    for note in dict.fromkeys(note for trained in members for note in trained.notes):
        print(f"note: {note}")
    folder = PredictionFolder(arguments.out, _settings(arguments, members, predictor))
    waiting = [
        picture for picture in pictures if not folder.is_done(picture.image, name=picture.name, source=picture.path)
    ]
    if len(waiting) < len(pictures):
        print(f"{len(pictures) - len(waiting)} of {len(pictures)} images are done and skipped")
    write = partial(
        _write,
        folder,
        predictor=predictor,
        num_classes=members[0].num_classes,
        probabilities=arguments.probabilities,
        contours=arguments.contours,
    )
    unreadable = _predict(predictor, waiting, folder, write, batch_size=batch_size)
    folder.write_table([picture.image for picture in pictures])
    print(f"{len(pictures) - len(unreadable)} masks in {folder.path / 'masks'}, over their images in overlays/")
    if unreadable:
        print(f"error: {len(unreadable)} of {len(pictures)} images could not be read:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in unreadable), file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="mhsvm predict",
        description=f"{main.__doc__} The same command goes on where it was stopped.",
        allow_abbrev=False,
    )
    trained = parser.add_mutually_exclusive_group(required=True)
    trained.add_argument("--weights", metavar="NAME", help="weights that come with mhsvm; an unknown name lists them")
    trained.add_argument(
        "--p",
        nargs="+",
        type=Path,
        metavar="FILE",
        help="checkpoint, ours or a published one; the probabilities of several (folds, seeds) are averaged",
    )
    parser.add_argument("--source", required=True, type=Path, metavar="PATH", help="an image, or a folder of images")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder for masks/ and overlays/")
    parser.add_argument(
        "--tta",
        choices=list_augmentations(),
        default="none",
        help="average over views: 4 flips, or with quarter turns 8; default none",
    )
    parser.add_argument("--threshold", type=float, metavar="T", help="probability of lesion; default: the checkpoint's")
    parser.add_argument("--largest-component", action="store_true", help="keep the largest region of each class")
    parser.add_argument("--fill-holes", action="store_true", help="fill background that a region encloses")
    parser.add_argument("--probabilities", action="store_true", help="write probabilities/ as 8-bit PNG")
    parser.add_argument("--contours", action="store_true", help="write contours/ as polygons (JSON) and PNG")
    add_model_options(parser)
    return parser.parse_args(argv)


def _settings(arguments: argparse.Namespace, members: Sequence[Trained], predictor: Predictor) -> dict:
    """All that the results depend on."""
    return {
        "source": str(arguments.source.resolve()),
        "checkpoints": [f"{trained.path.name} {trained.checksum[:16]}" for trained in members],
        "gate threshold": arguments.gate_threshold,
        "threshold": predictor.threshold,
        "tta": arguments.tta,
        "largest component": arguments.largest_component,
        "fill holes": arguments.fill_holes,
        "probabilities": arguments.probabilities,
        "contours": arguments.contours,
    }


def _find_pictures(source: Path) -> list[_Picture]:
    """The image, or all images of a folder by path.

    Raises:
        FileNotFoundError: There is no such file or folder, or no image in it.
    """
    if source.is_file():
        return [_Picture(source, source.name, PurePath(source.stem))]
    if not source.is_dir():
        raise FileNotFoundError(f"there is no image and no folder {source}")
    found = sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not _NO_PICTURE.search(path.name)
    )
    if not found:
        raise FileNotFoundError(f"there is no image in {source}; looked for {', '.join(EXTENSIONS)}")
    names = _result_names(found)
    return [_Picture(source / path, path.as_posix(), name) for path, name in zip(found, names, strict=True)]


def _result_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """Each image's path without its ending; with it, where that would be another image's path, too."""
    # some file systems take capitals for small letters
    wanted = Counter(str(path.with_suffix("")).lower() for path in paths)
    whole = {str(path).lower() for path in paths}

    def is_free(stem: PurePath) -> bool:
        return wanted[str(stem).lower()] == 1 and str(stem).lower() not in whole

    return [path.with_suffix("") if is_free(path.with_suffix("")) else path for path in paths]


def _predict(
    predictor: Predictor,
    pictures: Sequence[_Picture],
    folder: PredictionFolder,
    write: Callable[[tuple[_Picture, np.ndarray, Prediction]], dict],
    *,
    batch_size: int,
) -> list[str]:
    """Segment and write all that can be read; what cannot be is returned, with the reason.

    Threads read and write a few images ahead and behind, so that the network does not wait for the disk.
    """
    unreadable: list[str] = []
    read = in_order(_read, pictures, num_workers=num_cores())
    with tqdm(total=len(pictures), unit="img", disable=None, dynamic_ncols=True) as bar:

        def readable() -> Iterator[tuple[_Picture, np.ndarray]]:
            for picture, pixels in read:
                if isinstance(pixels, str):
                    unreadable.append(pixels)
                    bar.update()
                else:
                    yield picture, pixels

        for record in in_order(write, _in_batches(predictor, readable(), batch_size), num_workers=num_cores()):
            folder.add(record)
            bar.update()
    return unreadable


def _read(picture: _Picture) -> tuple[_Picture, np.ndarray | str]:
    """Its pixels, or why it cannot be read."""
    try:
        return picture, read_rgb(picture.path)
    except (ValueError, OSError) as error:
        return picture, str(error)


def _in_batches(
    predictor: Predictor, images: Iterable[tuple[_Picture, np.ndarray]], batch_size: int
) -> Iterator[tuple[_Picture, np.ndarray, Prediction]]:
    images = iter(images)
    while batch := list(islice(images, batch_size)):
        predictions = predictor.predict_batch([pixels for _, pixels in batch])
        for (picture, pixels), prediction in zip(batch, predictions, strict=True):
            yield picture, pixels, prediction


def _write(
    folder: PredictionFolder,
    done: tuple[_Picture, np.ndarray, Prediction],
    *,
    predictor: Predictor,
    num_classes: int,
    probabilities: bool,
    contours: bool,
) -> dict:
    """Write what was asked for of one image; its record."""
    picture, pixels, (mask, probability) = done
    labels = range(1, max(2, num_classes))
    outlines = {
        label: find_polygons(mask, probability, threshold=predictor.threshold, label=label)
        for label in labels
        if contours
    }
    return folder.write(
        picture.image,
        name=picture.name,
        source=picture.path,
        pixels=pixels,
        mask=mask,
        num_classes=num_classes,
        areas={str(label): _area(mask == label) for label in labels},
        probability=probability if probabilities else None,
        contours=outlines if contours else None,
    )


def _area(region: np.ndarray) -> dict:
    pixels = int(region.sum())
    return {"pixels": pixels, "share": round(pixels / region.size, 6), "regions": count_regions(region)}
