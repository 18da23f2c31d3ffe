"""Maps of probabilities at another size; apart from the resizing of images and masks, which needs no torch."""

import torch
from torch import Tensor
from torch.nn import functional as F

from mhsvm.data.resize import Size, as_height_width


def resize_probability(maps: Tensor, size: Size) -> Tensor:
    """Resize maps of probabilities, float (b, c, H, W) in 0..1, to (b, c, h, w), bilinear."""
    size = as_height_width(size)
    if maps.shape[-2:] == torch.Size(size):
        return maps
    # antialiasing matters on the way down: it averages instead of skipping
    return F.interpolate(maps, size=size, mode="bilinear", antialias=True).clamp(0, 1)
