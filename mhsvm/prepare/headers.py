"""Sizes of images and masks by the headers of their files, which are read long before all pixels could be."""

import io
from collections.abc import Sequence
from functools import partial
from lzma import LZMAError
from zipfile import BadZipFile

from PIL import Image

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.pairs import Pair
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.raster import PILLOW_ERRORS, check_size, open_raster, pillow_formats
from mhsvm.threads import in_order

UNREADABLE = Rule("unreadable file", "download it again, or export it as PNG; images of one frame are read")
SHAPES = Rule("mask and image of different sizes", "export masks at the size of their images, after EXIF orientation")

# Enough for the header of most files; the headers of others, such as TIFF, may be anywhere.
_START = 2**16
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


# Possible heights and widths, that of the stored pixels first.
Sizes = tuple[tuple[int, int], ...]


def check_headers(pairs: Sequence[Pair], problems: Problems, *, num_workers: int) -> None:
    """Add a problem for each file that is no image, and for each image and mask of different sizes."""
    for _ in in_order(partial(_check_pair, problems=problems), pairs, num_workers=num_workers):
        pass


def note_sizes(id_: str, image: tuple[int, ...], mask: tuple[int, ...], problems: Problems) -> None:
    """Add the problem of an image and a mask of different heights and widths."""
    sizes = [f"{h} x {w}" for h, w in (image[:2], mask[:2])]
    problems.add(SHAPES, f"{id_}: the image has {sizes[0]} pixels, the mask {sizes[1]} (height x width)")


def _check_pair(pair: Pair, *, problems: Problems) -> None:
    found: list[Sizes | None] = []
    for file in (pair.image, *pair.masks):
        try:
            found.append(read_sizes(file))
        except ValueError as error:
            found.append(None)
            problems.add(UNREADABLE, f"{file.name}: {error}")
    image, *masks = found
    for sizes in masks:
        if image is not None and sizes is not None and not {*image} & {*sizes}:
            note_sizes(pair.id, image[0], sizes[0], problems)


def read_sizes(file: SourceFile) -> Sizes:
    """Possible heights and widths of the image of a file, upright.

    There are two where the header leaves open whether the image is on its side, as in PNG.

    Raises:
        ValueError: The file is no image, or cannot be read.
    """
    try:
        return _sizes_of(_read_start(file))
    except (*PILLOW_ERRORS, BadZipFile, LZMAError):
        content = file.read()
    try:
        return _sizes_of(content)
    except PILLOW_ERRORS:
        # another package's format, or the message about a damaged file
        image = open_raster(content).image
        return ((image.height, image.width),)


def _read_start(file: SourceFile) -> bytes:
    if file.archive is not None and file.member is not None:
        with file.archive.open(file.member) as opened:
            return opened.read(_START)
    if not file.location.is_file():
        raise OSError("not a file")
    with file.location.open("rb") as opened:
        return opened.read(_START)


def _sizes_of(content: bytes) -> Sizes:
    image = Image.open(io.BytesIO(content), formats=pillow_formats())
    check_size(image.width, image.height)
    size, swapped = (image.height, image.width), (image.width, image.height)
    # the orientation of a PNG may be stated after its pixels
    is_known = image.format != "PNG" or "exif" in image.info
    if is_known and image.getexif().get(_ORIENTATION) not in _SIDEWAYS:
        return (size,)
    # Pillow turns the sizes of other formats, such as TIFF, before or after it reads the pixels, by its version
    return (swapped,) if image.format in ("JPEG", "MPO", "WEBP") else (size, swapped)
