"""Launcher of the kernels that make inputs and targets: the memory that is written, and grids."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

# Programs that look for the extremes of an image, and the values that each reads at once.
_SPANS, _VALUES = 32, 2048
_PIXELS = 512
# Products that are not fused with sums round as torch's do: the same pixels come from the same places.
_OPTIONS = {"num_warps": 4, "enable_fp_fusion": False}


class ChannelStatistics(NamedTuple):
    """Mean and deviation of red, green and blue, of values in 0..1."""

    mean: Sequence[float]
    deviation: Sequence[float]


def prepare_batch(
    images: Tensor,
    masks: Tensor,
    motions: Tensor | None,
    *,
    statistics: ChannelStatistics | None,
    num_classes: int,
    soft_targets: bool,
) -> tuple[Tensor, Tensor]:
    """What `mhsvm.data.augment.Augment` makes of a batch, in one kernel, or two where extremes are looked for.

    Args:
        images, masks, motions: As it takes them, on a GPU.
        statistics: Normalise by them; None takes each image's least value to 0 and its greatest to 255.
        num_classes, soft_targets: As it takes them.
    """
    from mhsvm.ops.fused.prepare_batch_kernels import extremes_kernel, prepare_kernel

    # as they lie in a data set: no copy
    images, masks = images.permute(0, 2, 3, 1).contiguous(), masks.contiguous()
    b, h, w, _ = images.shape
    inputs = torch.empty((b, 3, h, w), dtype=torch.float32, device=images.device)
    shape, dtype = ((b, 1, h, w), torch.float32) if num_classes == 1 else ((b, h, w), torch.int64)
    targets = torch.empty(shape, dtype=dtype, device=images.device)
    motions = None if motions is None else motions.to(images.device).contiguous()
    extremes = None
    with torch.cuda.device_of(images):
        if statistics is None:
            extremes = torch.empty((b, 2, _SPANS), dtype=torch.uint8, device=images.device)
            extremes_kernel[(_SPANS, b)](images, extremes, h * w * 3, SPANS=_SPANS, BLOCK=_VALUES, **_OPTIONS)
            statistics = ChannelStatistics((0.0,) * 3, (1.0,) * 3)
        prepare_kernel[(-(-h * w // _PIXELS), b)](
            images, masks, motions, extremes, inputs, targets,
            h, w, *statistics.mean, *statistics.deviation,
            SPANS=_SPANS, SOFT=soft_targets, BLOCK=_PIXELS, **_OPTIONS,
        )  # fmt: skip
    return inputs, targets
