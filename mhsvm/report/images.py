"""Images of a case as data URLs, which a page embeds once each; the page draws masks and overlays itself.

Shape letters: h w the map in pixels.
"""

import base64
import io

import numpy as np
from PIL import Image

# Pixels of the longer side: boundaries stay visible, and 600 cases stay below 15 MB.
LONGEST_SIDE = 256
_JPEG_QUALITY = 65


def shown_size(size: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an embedded image of (h, w)."""
    scale = min(1.0, LONGEST_SIDE / max(size))
    return round(size[0] * scale), round(size[1] * scale)


def color_image(image: np.ndarray) -> str:
    """Encode a color image, uint8 (h, w, 3), as JPEG."""
    return _url(_shrunk(Image.fromarray(image)), "jpeg", quality=_JPEG_QUALITY, optimize=True)


def gray_map(values: np.ndarray) -> str:
    """Encode a map, uint8 (h, w), without loss."""
    # a fourth smaller than PNG, most of all for uncertain predictions
    return _url(_shrunk(Image.fromarray(values)), "webp", lossless=True, quality=50, method=3)


def mask(lesion: np.ndarray) -> str:
    """Encode a mask, bool (h, w), in one bit per pixel; a shrunk pixel is lesion if at least half of it was."""
    coverage = _shrunk(Image.fromarray(lesion.astype(np.uint8) * 255))
    return _url(coverage.point(lambda value: 255 * (value >= 128), mode="1"), "png")


def label_map(labels: np.ndarray) -> str:
    """Encode class indices, uint8 (h, w), without loss; a shrunk map takes the nearest pixels."""
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
