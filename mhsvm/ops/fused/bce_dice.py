"""Binary cross-entropy and Dice loss of logits in one pass over them."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fused import bce_dice_launch as triton_loss
from mhsvm.ops.fusion import fuses


def bce_dice(logits: Tensor, targets: Tensor, *, bce_weight: float, dice_weight: float, smooth: float) -> Tensor:
    """Mean cross-entropy of all pixels, and the mean over the maps of 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    On a GPU these are three Triton kernels, gradient included, unless the environment variable MHSVM_BACKEND names
    another backend; elsewhere, under torch.compile, and where the targets want a gradient, they are torch's operations.

    Args:
        logits: (b, c, h, w), any float type; p is their sigmoid. Every channel of an image is a map of its own.
        targets: t, shaped like the logits, in 0..1.
        bce_weight, dice_weight: Of the two parts in their sum.
        smooth: s, in pixels.
    Returns:
        Scalar, float32, or float64 for such logits: 16-bit logits are widened first.
    Raises:
        ValueError: The shapes differ, or there is no pixel.
    Source: Milletari et al. 2016, arXiv 1606.04797, with p instead of its square.
    """
    if logits.ndim != 4 or logits.shape != targets.shape or not logits.numel():
        raise ValueError(
            "logits and targets are maps (b, c, h, w) of one shape, with a pixel at least; "
            f"received {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    fused = fuses(logits) and fuses(targets) and not targets.requires_grad
    loss = triton_loss.bce_dice if fused else composed_bce_dice
    return loss(logits, targets, bce_weight=bce_weight, dice_weight=dice_weight, smooth=smooth)


def composed_bce_dice(
    logits: Tensor, targets: Tensor, *, bce_weight: float, dice_weight: float, smooth: float
) -> Tensor:
    """`bce_dice` by torch's operations: the reference of the fused one."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets)
    p = logits.sigmoid()
    common = (p * targets).sum(dim=(2, 3))
    dice = 1 - (2 * common + smooth) / (p.sum(dim=(2, 3)) + targets.sum(dim=(2, 3)) + smooth)
    return bce_weight * cross_entropy + dice_weight * dice.mean()
