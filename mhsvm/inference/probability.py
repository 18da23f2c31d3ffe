"""From logits to probabilities and masks. The threshold is applied here and nowhere else."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from mhsvm.prepare.resize import Size, as_height_width


def probabilities(logits: Tensor) -> Tensor:
    """Logits (b, 1, h, w) -> float32 of lesion; (b, k, h, w) -> float32 of each class."""
    logits = logits.float()
    return logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)


def check_finite(probability: Tensor) -> None:
    """Refuse the output of a model with broken weights: NaN would pass for "no lesion".

    Raises:
        ValueError: A probability is not finite.
    """
    if not torch.isfinite(probability).all():
        raise ValueError("the model's output is not finite: its weights have diverged. Take an earlier checkpoint")


def to_mask(probability: Tensor, threshold: float) -> Tensor:
    """Probabilities (b, 1, h, w) -> uint8 (b, h, w), 1 from the threshold on; (b, k, h, w) -> the predicted class."""
    if probability.shape[1] == 1:
        return (probability[:, 0] >= threshold).to(torch.uint8)
    return probability.argmax(dim=1).to(torch.uint8)


def stored_to_mask(probability: np.ndarray, threshold: float) -> np.ndarray:
    """A stored probability, uint8 (h, w) or (k, h, w) -> uint8 (h, w), as by `to_mask`."""
    maps = torch.from_numpy(probability).view(1, -1, *probability.shape[-2:]) / 255
    return to_mask(maps, threshold)[0].numpy()


def resize_probability(maps: Tensor, size: Size) -> Tensor:
    """Resize maps of probabilities, float (b, c, H, W) in 0..1, to (b, c, h, w), bilinear."""
    size = as_height_width(size)
    if maps.shape[-2:] == torch.Size(size):
        return maps
    if size[1] == 1 < size[0]:
        # of a result with one column, torch (2.14.1, on the CPU) repeats the first row
        return resize_probability(maps.mT, size[::-1]).mT.contiguous()
    # antialiasing matters on the way down: it averages instead of skipping
    return F.interpolate(maps, size=size, mode="bilinear", antialias=True).clamp(0, 1)
