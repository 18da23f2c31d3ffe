"""Read the image of a DICOM file (dermoscopy is a "VL photographic" image), with pydicom.

Source: DICOM PS3.3, C.7.6.3 (pixels), C.11.1 (rescaling) and C.11.2 (windows).
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
import pydicom
from PIL import Image
from pydicom import Dataset, pixels
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.uid import DeflatedExplicitVRLittleEndian

# Exceptions that pydicom raises on damaged files, found by changing bytes at random.
_ERRORS = (
    OSError,
    ValueError,
    AttributeError,
    KeyError,
    IndexError,
    TypeError,
    EOFError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    InvalidDicomError,
    BytesLengthException,
    struct.error,
    zlib.error,
)


def read_dicom(content: bytes, check_size: Callable[[int, int], None]) -> tuple[Image.Image, int]:
    """Read a DICOM file of one frame.

    Colors are those of the file, MONOCHROME1 is turned so that 0 is black, and a palette stays one. Gray levels are
    rescaled and put through the first window, or lookup table, if the file has one.

    Args:
        content: The file.
        check_size: Raises ValueError for a (width, height) that is too large; called before pixels are decoded.
    Returns:
        The image, of mode L, I;16, P or RGB, and the gray level of white in L and I;16.
    Raises:
        ValueError: The file is damaged, has several frames, or has a kind of pixels or compression that is not read.
    """
    try:
        header = pydicom.dcmread(io.BytesIO(content[: 2**16]), specific_tags=[], stop_before_pixels=True, force=False)
        if header.file_meta.get("TransferSyntaxUID") == DeflatedExplicitVRLittleEndian:
            # it would unpack to any size before anything can be checked
            raise ValueError("a deflated DICOM file: save it without this compression")
        data = pydicom.dcmread(io.BytesIO(content))
        num_frames = int(data.get("NumberOfFrames") or 1)
        if num_frames > 1:
            raise ValueError(f"a DICOM file of {num_frames} frames; one is expected")
        if "PixelData" not in data:
            raise ValueError("a DICOM file without an image of 8 or 16 bits")
        check_size(int(data.Columns), int(data.Rows))
        return _image(data, pixels.pixel_array(data))
    except _ERRORS as error:
        # some messages of pydicom have a traceback in their further lines
        message = f"{error}".partition("\n")[0]
        raise ValueError(message if isinstance(error, ValueError) else f"a damaged DICOM file: {message}") from error


def _image(data: Dataset, levels: np.ndarray) -> tuple[Image.Image, int]:
    kind = data.PhotometricInterpretation
    white = 2 ** int(data.BitsStored) - 1
    if kind in ("MONOCHROME1", "MONOCHROME2"):
        return _gray(data, levels, white, is_inverted=kind == "MONOCHROME1")
    if kind == "PALETTE COLOR":
        return _palette(data, levels)
    if levels.ndim != 3 or levels.shape[2] != 3:
        raise ValueError(f"pixels of shape {levels.shape} with {kind}; gray, palette and three colors are read")
    if white != 255:
        levels = np.rint(levels * (255 / white)).astype(np.uint8)
    return Image.fromarray(levels.astype(np.uint8)), 255


def _gray(data: Dataset, levels: np.ndarray, white: int, *, is_inverted: bool) -> tuple[Image.Image, int]:
    """8-bit or 16-bit levels; exactly those of the file if it has no rescaling, window, or negative level."""
    is_plain = data.get("RescaleSlope", 1) == 1 and data.get("RescaleIntercept", 0) == 0
    has_tables = "ModalityLUTSequence" in data or "VOILUTSequence" in data
    if is_plain and not has_tables and "WindowCenter" not in data and data.PixelRepresentation == 0:
        levels = np.minimum(levels, white)
        levels = (white - levels if is_inverted else levels).astype(np.uint8 if white <= 255 else np.uint16)
        return Image.fromarray(levels), white
    fractions = _windowed(data, levels)
    fractions = 1 - fractions if is_inverted else fractions
    return Image.fromarray(np.rint(fractions * 65535).astype(np.uint16)), 65535


def _windowed(data: Dataset, stored: np.ndarray) -> np.ndarray:
    """Fractions of white, 0 to 1, after rescaling and the first window or lookup table."""
    levels = pixels.apply_modality_lut(stored, data).astype(np.float64)
    if "VOILUTSequence" in data:
        table = pixels.apply_voi(stored if "ModalityLUTSequence" not in data else levels.astype(np.int64), data)
        return table / (2.0 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    if "WindowCenter" in data:
        center, width = (float(np.ravel(data[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
        return _through_window(levels, center, width, str(data.get("VOILUTFunction", "LINEAR")))
    bits, is_signed = int(data.BitsStored), data.PixelRepresentation == 1
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if is_signed else [0, 2**bits - 1])
    low, high = sorted(pixels.apply_modality_lut(ends, data).astype(np.float64))
    return np.clip((levels - low) / max(high - low, 1e-12), 0, 1)


def _through_window(levels: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """The window of C.11.2.1.2 and C.11.2.1.3, as a fraction of the output range."""
    if not (np.isfinite(center) and np.isfinite(width) and width > 0):
        raise ValueError(f"a window is finite and wider than 0; received center {center:g}, width {width:g}")
    if function == "SIGMOID":
        return 1 / (1 + np.exp(np.clip(-4 * (levels - center) / width, -700, 700)))
    if function == "LINEAR_EXACT":
        return np.clip((levels - center) / width + 0.5, 0, 1)
    if width <= 1:
        return (levels > center - 0.5).astype(np.float64)
    return np.clip((levels - (center - 0.5)) / (width - 1) + 0.5, 0, 1)


def _palette(data: Dataset, indices: np.ndarray) -> tuple[Image.Image, int]:
    """A palette image, so that masks can be read by index."""
    if indices.max() > 255 or indices.min() < 0:
        colors = pixels.apply_color_lut(indices, data)
        return Image.fromarray(_eight_bits(data, colors)), 255
    image = Image.fromarray(indices.astype(np.uint8), "P")
    image.putpalette(_eight_bits(data, pixels.apply_color_lut(np.arange(256)[None], data)).tobytes())
    return image, 255


def _eight_bits(data: Dataset, colors: np.ndarray) -> np.ndarray:
    bits = int(data.RedPaletteColorLookupTableDescriptor[2])
    return (colors >> 8 if bits == 16 else colors).astype(np.uint8)
