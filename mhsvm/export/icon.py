"""The icon of a site: a lesion with its contour on skin."""

from PIL import Image, ImageDraw

_SKIN, _LESION, _CONTOUR = (232, 196, 172), (112, 66, 48), (20, 120, 90)
# Ellipses (left, top, right, bottom) of the lesion, as fractions, within the middle that round icons keep.
_PARTS = ((0.26, 0.30, 0.66, 0.70), (0.40, 0.24, 0.74, 0.58), (0.36, 0.44, 0.72, 0.76))
_CONTOUR_WIDTH = 0.03
_SMOOTHING = 4


def draw_icon(size: int) -> Image.Image:
    """The icon, an RGB image of `size` x `size` pixels."""
    side = size * _SMOOTHING
    image = Image.new("RGB", (side, side), _SKIN)
    draw = ImageDraw.Draw(image)
    for margin, color in ((_CONTOUR_WIDTH, _CONTOUR), (0, _LESION)):
        for left, top, right, bottom in _PARTS:
            box = (left - margin, top - margin, right + margin, bottom + margin)
            draw.ellipse(tuple(round(side * place) for place in box), fill=color)
    return image.resize((size, size), Image.Resampling.BOX).quantize(32)
