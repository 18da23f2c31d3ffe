"""Prediction for an image or all images of a folder; threads read images ahead and write results."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from mhsvm.inference.contours import find_polygons
from mhsvm.inference.postprocessing import count_regions
from mhsvm.inference.prediction_folder import PredictionFolder
from mhsvm.inference.predictor import Prediction, Predictor, read_rgb
from mhsvm.prepare.formats import EXTENSIONS, NAMES
from mhsvm.system import num_cores
from mhsvm.threads import in_order

# hidden files, and the superpixel images in ISIC's archives
_NO_IMAGE = re.compile(r"^\.|_superpixels\.")


class ImageFile(NamedTuple):
    """An image to segment: its file, its path in the source, and the path of its results without an ending."""

    path: Path
    image: str
    name: PurePath


def find_images(source: Path) -> list[ImageFile]:
    """The image at `source`, or all images of that folder, sorted by path.

    Raises:
        FileNotFoundError: There is no such file or folder, or no image in it.
    """
    if source.is_file():
        return [ImageFile(source, source.name, PurePath(source.stem))]
    if not source.is_dir():
        raise FileNotFoundError(f"there is no image and no folder {source}")
    found = sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not _NO_IMAGE.search(path.name)
    )
    if not found:
        raise FileNotFoundError(f"there is no image in {source}; looked for {NAMES}")
    names = _result_names(found)
    return [ImageFile(source / path, path.as_posix(), name) for path, name in zip(found, names, strict=True)]


def predict_images(
    predictor: Predictor,
    images: Sequence[ImageFile],
    folder: PredictionFolder,
    *,
    num_classes: int,
    batch_size: int,
    probabilities: bool = False,
    contours: bool = False,
    progress: bool = False,
) -> list[str]:
    """Segment images and write their results to a folder, the table of areas last; images that are done are skipped.

    Args:
        predictor: Segments the images.
        images: From `find_images`.
        folder: The folder of the results.
        num_classes: 1, or k.
        batch_size: Images per batch.
        probabilities, contours: Write these too.
        progress: Show a progress bar in a terminal.
    Returns:
        The reason for each image that cannot be read.
    """
    waiting = [image for image in images if not folder.is_done(image.image, name=image.name, source=image.path)]
    write = partial(
        _write,
        folder,
        threshold=predictor.threshold,
        num_classes=num_classes,
        probabilities=probabilities,
        contours=contours,
    )
    unreadable = _predict(predictor, waiting, folder, write, batch_size=batch_size, progress=progress)
    folder.write_table([image.image for image in images])
    return unreadable


def _result_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """The path of each image without its ending; with the ending where two results would have the same path."""
    # some file systems do not distinguish capitals
    stems = Counter(str(path.with_suffix("")).lower() for path in paths)
    whole = {str(path).lower() for path in paths}

    def is_free(stem: PurePath) -> bool:
        return stems[str(stem).lower()] == 1 and str(stem).lower() not in whole

    return [path.with_suffix("") if is_free(path.with_suffix("")) else path for path in paths]


def _predict(
    predictor: Predictor,
    images: Sequence[ImageFile],
    folder: PredictionFolder,
    write: Callable[[tuple[ImageFile, np.ndarray, Prediction]], dict],
    *,
    batch_size: int,
    progress: bool,
) -> list[str]:
    unreadable: list[str] = []
    read = in_order(_read, images, num_workers=num_cores())
    hidden = None if progress else True
    with tqdm(total=len(images), unit="img", disable=hidden, dynamic_ncols=True) as bar:

        def readable() -> Iterator[tuple[ImageFile, np.ndarray]]:
            for image, pixels in read:
                if isinstance(pixels, str):
                    unreadable.append(pixels)
                    bar.update()
                else:
                    yield image, pixels

        for record in in_order(write, _in_batches(predictor, readable(), batch_size), num_workers=num_cores()):
            folder.add(record)
            bar.update()
    return unreadable


def _read(image: ImageFile) -> tuple[ImageFile, np.ndarray | str]:
    """The pixels of an image, or the reason that it cannot be read."""
    try:
        return image, read_rgb(image.path)
    except (ValueError, OSError) as error:
        return image, str(error)


def _in_batches(
    predictor: Predictor, images: Iterable[tuple[ImageFile, np.ndarray]], batch_size: int
) -> Iterator[tuple[ImageFile, np.ndarray, Prediction]]:
    images = iter(images)
    while batch := list(islice(images, batch_size)):
        predictions = predictor.predict_batch([pixels for _, pixels in batch])
        for (image, pixels), prediction in zip(batch, predictions, strict=True):
            yield image, pixels, prediction


def _write(
    folder: PredictionFolder,
    done: tuple[ImageFile, np.ndarray, Prediction],
    *,
    threshold: float,
    num_classes: int,
    probabilities: bool,
    contours: bool,
) -> dict:
    """Write the results of one image, and return its record."""
    image, pixels, (mask, probability) = done
    labels = range(1, max(2, num_classes))
    polygons = {
        label: find_polygons(mask, probability, threshold=threshold, label=label) for label in labels if contours
    }
    return folder.write(
        image.image,
        name=image.name,
        source=image.path,
        pixels=pixels,
        mask=mask,
        num_classes=num_classes,
        areas={str(label): _area(mask == label) for label in labels},
        probability=probability if probabilities else None,
        contours=polygons if contours else None,
    )


def _area(region: np.ndarray) -> dict:
    pixels = int(region.sum())
    return {"pixels": pixels, "share": round(pixels / region.size, 6), "regions": count_regions(region)}
