"""Sizes of images and masks by the headers of their files, which are read long before all pixels could be."""

import io

from PIL import Image

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.raster import PILLOW_ERRORS, check_size, open_raster, pillow_formats

# Enough for the header of most files; the headers of others, such as TIFF, may be anywhere.
_START = 2**16
_ORIENTATION, _SIDEWAYS = 0x0112, (5, 6, 7, 8)


Sizes = frozenset[tuple[int, int]]


def read_sizes(file: SourceFile) -> Sizes:
    """Possible heights and widths of the image of a file, upright.

    There are two where the header leaves open whether the image is on its side, as in PNG.

    Raises:
        ValueError: The file is no image, or cannot be read.
    """
    try:
        return _sizes_of(_read_start(file))
    except PILLOW_ERRORS:
        content = file.read()
    try:
        return _sizes_of(content)
    except PILLOW_ERRORS:
        # another package's format, or the message about a damaged file
        image = open_raster(content).image
        return frozenset({(image.height, image.width)})


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
    upright, sideways = (image.height, image.width), (image.width, image.height)
    if image.format == "PNG" and "exif" not in image.info:
        # its orientation may be stated after its pixels
        return frozenset({upright, sideways})
    return frozenset({sideways if image.getexif().get(_ORIENTATION) in _SIDEWAYS else upright})
