"""Prediction for all images of folders, zip files and lists; threads read images ahead and write results."""

import errno
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.files import NO_ROOM
from mhsvm.inference.contours import find_polygons
from mhsvm.inference.found_images import ImageFile
from mhsvm.inference.postprocessing import count_regions
from mhsvm.inference.prediction_folder import PredictionFolder
from mhsvm.inference.predictor import Prediction, Predictor
from mhsvm.prepare.archive import readable
from mhsvm.prepare.decode import decode_image
from mhsvm.system import num_cores
from mhsvm.threads import in_order

Result = TypeVar("Result")

# An error of these kinds belongs to one image, and the others are segmented.
_IMAGE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError)
# With these, no other image can be written either: no space, quota, largest size of a file, read-only, device.
_DISK_ERRORS = (*NO_ROOM, errno.EROFS, errno.EIO)


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
        images: From `open_images`.
        folder: The folder of the results.
        num_classes: 1, or k.
        batch_size: Images per batch.
        probabilities, contours: Write these too.
        progress: Show a progress bar in a terminal.
    Returns:
        The reason for each image that cannot be read or segmented.
    Raises:
        OSError: No file can be written any more, such as on a full disk.
    """
    waiting = [image for image in images if not folder.is_done(image.image, name=image.name, file=image.file)]
    write = partial(
        _write,
        folder,
        threshold=predictor.threshold,
        num_classes=num_classes,
        probabilities=probabilities,
        contours=contours,
    )
    with _explained(folder.path):
        failed = _predict(predictor, waiting, folder, write, batch_size=batch_size, progress=progress)
        folder.write_table([image.image for image in images])
    return failed


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Say how to go on after a full disk."""
    try:
        yield
    except OSError as error:
        if error.errno not in _DISK_ERRORS:
            raise
        text = (
            f"{readable(str(folder))} cannot be written: {error.strerror}. Make room, then give the same command again"
        )
        explained = OSError(text)
        # the command ends with the status of such errors
        explained.errno = error.errno
        raise explained from error


def _predict(
    predictor: Predictor,
    images: Sequence[ImageFile],
    folder: PredictionFolder,
    write: Callable[[tuple[ImageFile, np.ndarray, Prediction]], dict],
    *,
    batch_size: int,
    progress: bool,
) -> list[str]:
    failed: list[str] = []
    read = in_order(_read, images, num_workers=num_cores())
    hidden = None if progress else True
    with tqdm(total=len(images), unit="img", disable=hidden, dynamic_ncols=True) as bar:

        def good(results: Iterable[Result | str]) -> Iterator[Result]:
            for result in results:
                if isinstance(result, str):
                    failed.append(result)
                    bar.update()
                else:
                    yield result

        predicted = good(_in_batches(predictor, good(read), batch_size))
        for record in good(in_order(partial(_written, write), predicted, num_workers=num_cores())):
            folder.add(record)
            bar.update()
    return failed


def _read(image: ImageFile) -> tuple[ImageFile, np.ndarray] | str:
    """The pixels of an image, or the reason that it cannot be read."""
    try:
        return image, decode_image(image.file.read())
    except _IMAGE_ERRORS as error:
        return _reason(image, error)


def _in_batches(
    predictor: Predictor, images: Iterable[tuple[ImageFile, np.ndarray]], batch_size: int
) -> Iterator[tuple[ImageFile, np.ndarray, Prediction] | str]:
    images = iter(images)
    while batch := list(islice(images, batch_size)):
        try:
            predictions = predictor.predict_batch([pixels for _, pixels in batch])
        except torch.OutOfMemoryError:
            # the same for every image
            raise
        except _IMAGE_ERRORS as error:
            if len(batch) == 1:
                yield _reason(batch[0][0], error)
            else:
                yield from _in_batches(predictor, batch, batch_size=1)
            continue
        for (image, pixels), prediction in zip(batch, predictions, strict=True):
            yield image, pixels, prediction


def _written(
    write: Callable[[tuple[ImageFile, np.ndarray, Prediction]], dict], done: tuple[ImageFile, np.ndarray, Prediction]
) -> dict | str:
    """The record of an image, or the reason that its results cannot be written."""
    try:
        return write(done)
    except _IMAGE_ERRORS as error:
        if isinstance(error, OSError) and error.errno in _DISK_ERRORS:
            raise
        return _reason(done[0], error)


def _reason(image: ImageFile, error: Exception) -> str:
    place = f"/{image.file.member.filename}" if image.file.member is not None else ""
    message = f"{error}" if isinstance(error, (ValueError, OSError)) else f"{type(error).__name__}: {error}"
    if isinstance(error, OSError) and error.errno == errno.ENAMETOOLONG:
        # a member of an archive may have a longer name than any file; the system's message repeats it twice
        message = "its name is too long for the file of its mask, mostly over 255 bytes: shorten it"
    return readable(f"{image.file.location}{place}: {message}")


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
        state=image.file.state(),
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
