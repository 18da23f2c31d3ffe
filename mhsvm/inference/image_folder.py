"""Prediction for all images of folders, zip files and lists; threads read images ahead and write results."""

import errno
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.inference.contours import find_polygons
from mhsvm.inference.postprocessing import count_regions
from mhsvm.inference.prediction_folder import PredictionFolder
from mhsvm.inference.predictor import Prediction, Predictor
from mhsvm.prepare.archive import SourceFile, readable
from mhsvm.prepare.decode import decode_image
from mhsvm.prepare.formats import ARCHIVES, NAMES, is_read, unread_kind
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.walk import UNREAD_IMAGES, expand_lists, open_sources
from mhsvm.system import num_cores
from mhsvm.threads import in_order

Result = TypeVar("Result")

# An error of these kinds belongs to one image, and the others are segmented.
_IMAGE_ERRORS = (OSError, ValueError, RuntimeError, MemoryError, ArithmeticError, LookupError, TypeError)
# With these, no other image can be written either: no space, quota, largest size of a file, read-only, device.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO)


class ImageFile(NamedTuple):
    """An image to segment: its file, its path in the source, and the path of its results without an ending."""

    file: SourceFile
    image: str
    name: PurePath


class FoundImages(NamedTuple):
    """Images of sources.

    Attributes:
        images: The images, by ascending path.
        num_unread: Number of images of formats that are not read.
        unread: Lines about these, by kind.
        unsound: Lines about archives that cannot be read.
        left_out: Lines about all else that is left out, by kind.
    """

    images: list[ImageFile]
    num_unread: int
    unread: list[str]
    unsound: list[str]
    left_out: list[str]


@contextmanager
def open_images(sources: Sequence[Path]) -> Iterator[FoundImages]:
    """Find the images of sources; see `mhsvm.prepare.walk.open_sources`.

    The path of an image starts at the folder or zip file or, if several sources are given, at the folder that holds
    them all.

    Args:
        sources: Images, folders, zip files, and text files with one path a line.
    Yields:
        The images, which can be read until the block ends.
    Raises:
        FileNotFoundError: There is no such file or folder, or no image in it.
        ValueError: A list cannot be read, or names files that do not exist.
    """
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"there is no image and no folder {readable(str(source))}")
    listed = Problems()
    paths = expand_lists(sources, listed)
    listed.raise_if_any("the list of images has problems, and nothing was segmented:")
    problems, given = Problems(), {os.path.abspath(path) for path in paths}
    with open_sources(paths, problems) as files:
        images = [file for file in files if _is_image(file, given)]
        kinds = [unread_kind(file.name) for file in files if not is_read(file.name)]
        num_unread = sum(kind is not None and kind not in ARCHIVES for kind in kinds)
        unsound = [line for block in problems.describe() for line in block.split("\n")]
        unread = [line for line in problems.left_out() if UNREAD_IMAGES in line]
        left_out = [line for line in problems.left_out() if UNREAD_IMAGES not in line]
        if not images:
            found = "".join(f"\n  left out: {line}" for line in problems.left_out())
            raise FileNotFoundError(
                f"there is no image in {readable(', '.join(map(str, sources)))}; looked for {NAMES}"
                + "\n".join([found, *unsound])
            )
        yield FoundImages(_name_images(images, paths), num_unread, unread, unsound, left_out)


def _is_image(file: SourceFile, given: set[str]) -> bool:
    """Whether a file is an image by its ending, or one without a known ending that was given itself."""
    is_given = file.member is None and os.path.abspath(file.location) in given
    return is_read(file.name) or (is_given and unread_kind(file.name) is None)


def _name_images(files: Iterable[SourceFile], paths: Sequence[Path]) -> list[ImageFile]:
    base = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    if len(paths) == 1 and paths[0].is_dir():
        base = os.path.abspath(paths[0])
    inside = len(paths) == 1 and paths[0].is_file()

    def place(file: SourceFile) -> PurePosixPath:
        location = readable(os.path.relpath(os.path.abspath(file.location), base)).replace(os.sep, "/")
        member = file.name.partition("/")[2] if file.member is not None else ""
        return PurePosixPath(member if inside and member else location, "" if inside else member)

    placed = sorted(((place(file), file) for file in files), key=lambda pair: (pair[0], os.fsencode(pair[1].location)))
    distinct = _distinct([path for path, _ in placed])
    names = _result_names(distinct)
    return [ImageFile(file, str(path), name) for (_, file), path, name in zip(placed, distinct, names, strict=True)]


def _distinct(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Number equal paths: members of a zip file, or names that are not UTF-8 and became equal as text."""
    found: dict[PurePosixPath, None] = {}
    for path in paths:
        other, number = path, 1
        while other in found:
            number += 1
            other = path.with_name(f"{path.stem}~{number}{path.suffix}")
        found[other] = None
    return list(found)


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
        raise OSError(
            f"{readable(str(folder))} cannot be written: {error.strerror}. Make room, then give the same command again"
        ) from error


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
