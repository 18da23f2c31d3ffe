"""Change random bytes of images and archives: each is read or refused by name, and none ends in a traceback."""

import contextlib
import io
import random
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pillow_heif
import pydicom
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import set_pixel_data
from pydicom.uid import ExplicitVRLittleEndian, RLELossless, VLPhotographicImageStorage, generate_uid

from mhsvm.inference.found_images import open_images
from mhsvm.prepare.decode import decode_grayscale, decode_image, decode_mask
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.walk import open_sources
from tests.faults.outcomes import REFUSED, TRACEBACK, Counts

READ = "read"
_LARGEST_MASK = 2**16


def run(*, count: int, seed: int, folder: Path) -> Counts:
    """Change `count` images and a third as many archives, each in one to eight places.

    Args:
        count: Number of images, over all formats.
        seed: Seed of the changes.
        folder: A folder for the archives.
    Returns:
        The number of outcomes of each format.
    """
    generator = random.Random(seed)
    counts: Counts = {}
    with warnings.catch_warnings():
        # readers warn of damaged tags
        warnings.simplefilter("ignore")
        for name, content in _images().items():
            for _ in range(-(-count // len(_images()))):
                counts.setdefault(name, Counter())[_outcome(_decode, mutate(content, generator))] += 1
        archive = _archive()
        for _ in range(-(-count // 3)):
            path = folder / "a.zip"
            path.write_bytes(mutate(archive, generator))
            counts.setdefault("zip", Counter())[_outcome(_walk, path)] += 1
    return counts


def mutate(content: bytes, generator: random.Random) -> bytes:
    """Change, insert or remove bytes after the mark of the format; half of them near the start, where headers are."""
    changed = bytearray(content)
    for _ in range(generator.choice((1, 1, 2, 4, 8))):
        place = generator.randrange(4, generator.choice((len(changed), min(len(changed), 400))))
        action = generator.random()
        if action < 0.9:
            changed[place] = generator.choice((0, 1, 127, 128, 255, generator.randrange(256)))
        elif action < 0.95:
            changed[place:place] = generator.randbytes(generator.randint(1, 4))
        else:
            del changed[place : place + generator.randint(1, 4)]
    return bytes(changed)


def _outcome(read: Callable[[object], None], content: object) -> str:
    try:
        read(content)
    except (ValueError, OSError):
        return REFUSED
    except (RuntimeError, LookupError, TypeError, AttributeError, MemoryError, EOFError, ArithmeticError, SyntaxError):
        return TRACEBACK
    return READ


def _decode(content: bytes) -> None:
    image = decode_image(content)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise TypeError("an image is uint8 (h, w, 3)")
    if image.size < _LARGEST_MASK:
        for read in (decode_mask, decode_grayscale):
            # colors are no mask
            with contextlib.suppress(ValueError):
                if read(content).shape != image.shape[:2]:
                    raise TypeError("a mask has the size of its image")


def _walk(path: Path) -> None:
    with open_sources([path], Problems()) as files:
        for file in files:
            file.read()
    with open_images([path]) as found:
        for image in found.images:
            decode_image(image.file.read())


def _images() -> dict[str, bytes]:
    rows, columns = np.mgrid[:24, :32]
    colors = np.stack([rows * 9, columns * 7, rows + columns], axis=2).astype(np.uint8)
    mask = Image.fromarray(((rows - 12) ** 2 + (columns - 16) ** 2 < 60).astype(np.uint8) * np.uint8(255))
    deep = Image.fromarray((rows * 2500).astype(np.uint16))
    palette = mask.convert("P")
    formats = {
        "png": (Image.fromarray(colors), "PNG", {}),
        "jpg": (Image.fromarray(colors), "JPEG", {}),
        "bmp": (palette, "BMP", {}),
        "tif": (deep, "TIFF", {"compression": "tiff_lzw"}),
        "webp": (Image.fromarray(colors), "WEBP", {}),
        "gif": (palette, "GIF", {}),
        "avif": (Image.fromarray(colors), "AVIF", {}),
        "jp2": (Image.fromarray(colors), "JPEG2000", {}),
        "pgm": (mask, "PPM", {}),
    }
    made = {}
    for name, (image, format, options) in formats.items():
        file = io.BytesIO()
        image.save(file, format, **options)
        made[name] = file.getvalue()
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(colors)).save(file)
    return {**made, "heic": file.getvalue(), "dcm": _dicom(colors), "dcm-rle": _dicom(np.array(mask), compressed=True)}


def _dicom(pixels: np.ndarray, *, compressed: bool = False) -> bytes:
    data = pydicom.Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data.SOPClassUID, data.SOPInstanceUID = VLPhotographicImageStorage, generate_uid(entropy_srcs=["made"])
    set_pixel_data(data, pixels, "MONOCHROME1" if pixels.ndim == 2 else "RGB", 8)
    data.WindowCenter, data.WindowWidth = "128", "200"
    if compressed:
        data.compress(RLELossless)
    file = io.BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def _archive() -> bytes:
    images = _images()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("png", "gif"):
            archive.writestr(f"images/a.{name}", images[name])
    return file.getvalue()
