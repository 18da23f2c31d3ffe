"""Pictures of a case as a page embeds them, once each: what is drawn of them is drawn there.

Shape letters: h w the map in pixels.
"""

import base64
import io

import numpy as np
from PIL import Image

# Pixels of the longer side: enough to see outlines, and 600 cases stay below 15 MB.
LONGEST_SIDE = 256
_JPEG_QUALITY = 65


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width at which pictures of (h, w) are embedded."""
    scale = min(1.0, LONGEST_SIDE / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def photograph(image: np.ndarray) -> str:
    """A photograph, uint8 (h, w, 3), as JPEG."""
    return _url(_shrunk(Image.fromarray(image)), "jpeg", quality=_JPEG_QUALITY, optimize=True)


def grey_map(values: np.ndarray) -> str:
    """A map, uint8 (h, w), in eight bits, exactly."""
    # a fourth smaller than a PNG, which matters most where a network is unsure
    return _url(_shrunk(Image.fromarray(values)), "webp", lossless=True, quality=50, method=3)


def mask(lesion: np.ndarray) -> str:
    """A mask, bool (h, w), in one bit; a pixel of a smaller one is lesion from half of it on."""
    coverage = _shrunk(Image.fromarray(lesion.astype(np.uint8) * 255))
    return _url(coverage.point(lambda value: 255 * (value >= 128), mode="1"), "png")


def label_map(labels: np.ndarray) -> str:
    """Class indices, uint8 (h, w), in eight bits; a smaller map takes the pixels in the middle."""
    image = Image.fromarray(labels)
    h, w = shown_size(labels.shape)
    return _url(image.resize((w, h), Image.Resampling.NEAREST), "png")


def _shrunk(image: Image.Image) -> Image.Image:
    h, w = shown_size((image.height, image.width))
    return image if (w, h) == image.size else image.resize((w, h), Image.Resampling.BOX)


def _url(image: Image.Image, format: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return f"data:image/{format};base64,{base64.b64encode(buffer.getvalue()).decode('ascii')}"
