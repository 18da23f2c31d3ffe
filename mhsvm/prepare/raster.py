"""Open the content of an image file of any format as one upright image."""

import importlib
import io
import struct
import zlib
from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from mhsvm.prepare.formats import FORMATS, NAMES, needs_extra

# Pillow's default limit, kept here so that a caller who raises it in Pillow does not raise it for archives.
LARGEST_IMAGE = 89_478_485
# Exceptions that Pillow raises on damaged files (found by changing bytes at random) and on oversized ones. The warning
# is raised if warnings are errors.
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    KeyError,
    TypeError,
    AttributeError,
    OverflowError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)
_HEIC_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"}
_BITS, _PHOTOMETRIC = 258, 262


class Raster(NamedTuple):
    """An upright image.

    Attributes:
        image: A loaded Pillow image of any mode.
        white: The gray level of white, 255 or that of 16-bit levels; in modes with colors, 255.
        is_coarse: Whether it has 16-bit colors or alpha, of which Pillow reads the upper 8 bits.
    """

    image: Image.Image
    white: int
    is_coarse: bool = False


def open_raster(content: bytes) -> Raster:
    """Open an image file, found by its content.

    Gray levels of white-is-zero TIFF files are turned, at every depth, so that 0 is black.

    Raises:
        ValueError: The file has another format, is damaged, needs a package that is not installed, or has more than 89
            million pixels or several frames.
    """
    if content[128:132] == b"DICM":
        return _open_dicom(content)
    if content[4:8] == b"ftyp" and _brands(content) & {*_HEIC_BRANDS, b"mif1"} and b"avif" not in _brands(content):
        return _open_heic(content)
    try:
        content, is_inverted = _black_is_zero(content)
        image = Image.open(io.BytesIO(content), formats=pillow_formats())
        check_size(image.width, image.height)
        num_frames = getattr(image, "n_frames", 1)
        # an MPO file is a JPEG of a camera, with previews or gain maps after the image
        if num_frames > 1 and image.format != "MPO":
            raise ValueError(f"a {image.format} of {num_frames} frames; one is expected")
        is_coarse = image.mode in ("LA", "RGB", "RGBA") and ";16" in str(image.tile)
        image.load()
        return Raster(*_upright_gray(image, is_inverted), is_coarse)
    except UnidentifiedImageError as error:
        raise ValueError(f"no {NAMES} file, or a damaged one") from error
    except PILLOW_ERRORS as error:
        raise ValueError(_message(error)) from error


def from_pillow(image: Image.Image) -> Raster:
    """The raster of an image that a caller has opened with Pillow."""
    image.load()
    tags = getattr(image, "tag_v2", {})
    return Raster(*_upright_gray(image, image.mode.startswith("I;16") and tags.get(_PHOTOMETRIC) == 0))


def _upright_gray(image: Image.Image, is_inverted: bool) -> tuple[Image.Image, int]:
    """Turn an image upright and make 0 black; return it with the level of white."""
    white = 255
    if image.mode == "F" or image.mode.startswith("I"):
        (bits,) = getattr(image, "tag_v2", {}).get(_BITS, (16,))[:1]
        white = 2**bits - 1 if 8 < bits < 16 else 65535
    upright = ImageOps.exif_transpose(image)
    if is_inverted:
        upright = Image.fromarray(np.uint16(white) - np.array(upright).astype(np.uint16))
    return upright, white


def check_size(width: int, height: int) -> None:
    """Raise ValueError for an image that is too large to be opened."""
    if width * height > LARGEST_IMAGE:
        raise ValueError(f"{width} x {height} pixels are more than {LARGEST_IMAGE:,}")


@cache
def pillow_formats() -> tuple[str, ...]:
    """Names of Pillow's readers for our formats; an older Pillow lacks some."""
    Image.init()
    return tuple(name for format in FORMATS for name in format.pillow if name in Image.OPEN)


def _black_is_zero(content: bytes) -> tuple[bytes, bool]:
    """Relabel a 12- or 16-bit white-is-zero TIFF file as black-is-zero; return it, and whether it was relabeled.

    Pillow (seen with 13.0.0) turns the levels of such files of 1 to 8 bits but not of 16, and opens none that is
    big-endian or has 12 bits.
    """
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    version = struct.unpack_from(f"{order}H", content, 2)[0] if order else 0
    if version not in (42, 43):
        return content, False
    # entries of 12 bytes, or of 20 in a BigTIFF file: tag, type, count, value
    number, place, length = ("H", 4, 12) if version == 42 else ("Q", 8, 20)
    (offset,) = struct.unpack_from(f"{order}{'I' if version == 42 else 'Q'}", content, place)
    (num_entries,) = struct.unpack_from(f"{order}{number}", content, offset)
    start = offset + struct.calcsize(number)
    values = {}
    for entry in range(start, start + length * min(num_entries, 4096), length):
        tag, kind, count = struct.unpack_from(f"{order}HH{'I' if version == 42 else 'Q'}", content, entry)
        values[tag] = (count, {3: "H", 4: "I"}.get(kind, "B"), entry + (8 if version == 42 else 12))
    count, bits_type, bits_place = values.get(_BITS, (0, "B", 0))
    _, type_, place = values.get(_PHOTOMETRIC, (0, "B", 0))
    bits = struct.unpack_from(f"{order}{bits_type}", content, bits_place)[0]
    if not place or count != 1 or bits not in (12, 16) or struct.unpack_from(f"{order}{type_}", content, place)[0] != 0:
        return content, False
    one = struct.pack(f"{order}{type_}", 1)
    return b"".join([content[:place], one, content[place + len(one) :]]), True


def _message(error: Exception) -> str:
    is_clear = isinstance(error, (ValueError, OSError, SyntaxError, Image.DecompressionBombError)) and str(error)
    return f"{error}" if is_clear else f"a damaged file ({type(error).__name__}: {error})"


def _brands(content: bytes) -> set[bytes]:
    length = min(int.from_bytes(content[:4], "big"), 256)
    return {content[8:12], *(content[start : start + 4] for start in range(16, length, 4))}


def _open_heic(content: bytes) -> Raster:
    """The primary image of a HEIC file; its container says how it is rotated, and the reader does so."""
    pillow_heif = _import("pillow_heif", "HEIC")
    try:
        opened = pillow_heif.open_heif(io.BytesIO(content))
        check_size(*opened.size)
        image = opened.to_pillow()
        return Raster(*_upright_gray(image, is_inverted=False))
    except PILLOW_ERRORS as error:
        raise ValueError(_message(error)) from error


def _open_dicom(content: bytes) -> Raster:
    _import("pydicom", "DICOM")
    # imported here, because it needs the package
    from mhsvm.prepare.dicom import read_dicom

    image, white = read_dicom(content, check_size)
    return Raster(image, white)


def _import(package: str, format_name: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ValueError(needs_extra(format_name)) from error
