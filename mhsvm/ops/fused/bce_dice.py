"""Binary cross-entropy and Dice loss of logits in one pass over them."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.triton_support import unsupported_by_triton

# Cells of a tile: 8 a lane of 4 warps.
_TILE = 1024
# Chunks of a map's cells, each summed by one program.
_MAX_CHUNKS = 64
# Numbers of a tile of the sums of chunks.
_SUMS_TILE = 1024


def bce_dice(
    logits: Tensor, targets: Tensor, *, bce_weight: float, dice_weight: float, smooth: float, backend: str = "auto"
) -> Tensor:
    """Mean cross-entropy of all cells, and the mean over the maps of 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s).

    The backend "triton" computes it in three kernels, gradient included; loss and gradient have the same bits in every
    run.

    Args:
        logits: (b, c, h, w), any float type; p is their sigmoid. Every channel of an image is one map.
        targets: t, shaped like the logits, in 0..1.
        bce_weight, dice_weight: Weights of the two terms.
        smooth: s, in cells.
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        Scalar, float32, or float64 for such logits: 16-bit logits are widened first.
    Raises:
        ValueError: The shapes differ, there is no cell, or `backend` is unknown or cannot run here.
    Source: Milletari et al. 2016, arXiv 1606.04797, with p instead of its square.
    """
    if logits.ndim != 4 or logits.shape != targets.shape or not logits.numel():
        raise ValueError(
            "logits and targets are maps (b, c, h, w) of one shape, with a pixel at least; "
            f"received {tuple(logits.shape)} and {tuple(targets.shape)}"
        )
    return BCE_DICE(backend, logits, targets, bce_weight=bce_weight, dice_weight=dice_weight, smooth=smooth)


def bce_dice_reference(
    logits: Tensor, targets: Tensor, *, bce_weight: float, dice_weight: float, smooth: float
) -> Tensor:
    """`bce_dice` by torch's operations."""
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    cross_entropy = F.binary_cross_entropy_with_logits(logits, targets)
    p = logits.sigmoid()
    common = (p * targets).sum(dim=(2, 3))
    dice = 1 - (2 * common + smooth) / (p.sum(dim=(2, 3)) + targets.sum(dim=(2, 3)) + smooth)
    return bce_weight * cross_entropy + dice_weight * dice.mean()


def triton_bce_dice(logits: Tensor, targets: Tensor, *, bce_weight: float, dice_weight: float, smooth: float) -> Tensor:
    """`bce_dice` by kernels."""
    return _BCEDice.apply(logits, targets, bce_weight, dice_weight, smooth)


def _unsupported_by_triton(logits: Tensor, targets: Tensor, **options: float) -> str | None:
    if targets.requires_grad:
        return "its kernels give no gradient of the targets; detach them"
    return unsupported_by_triton(logits) or unsupported_by_triton(targets)


BCE_DICE = Operation("bce_dice", bce_dice_reference)
BCE_DICE.register("triton", triton_bce_dice, unsupported_reason=_unsupported_by_triton, traceable=False)


class _BCEDice(torch.autograd.Function):
    @staticmethod
    def forward(ctx, logits, targets, bce_weight, dice_weight, smooth):
        from mhsvm.ops.fused.bce_dice_kernels import bce_dice_fwd_kernel_loss, bce_dice_fwd_kernel_sums

        logits, targets = logits.contiguous(), targets.contiguous()
        maps, cells, chunk = _sizes(logits)
        chunks = -(-cells // chunk)
        sums = torch.empty((maps, chunks, 3), dtype=torch.float32, device=logits.device)
        derivatives, loss = sums.new_empty((maps, 2)), sums.new_empty(())
        # Factors of the sums, for the mean over all cells and the mean over the maps.
        bce_scale, dice_scale = ctx.scales = bce_weight / (maps * cells), dice_weight / maps
        padded = 1 << (chunks - 1).bit_length()
        with torch.cuda.device_of(logits):
            bce_dice_fwd_kernel_sums[(chunks, maps)](
                p_x=logits, p_t=targets, p_sums=sums, cells=cells, chunk=chunk, chunks=chunks, L=_TILE, num_warps=4
            )
            bce_dice_fwd_kernel_loss[(1,)](
                p_sums=sums, p_derivatives=derivatives, p_loss=loss, maps=maps, chunks=chunks, bce_scale=bce_scale,
                dice_scale=dice_scale, smooth=smooth, MAPS=max(1, _SUMS_TILE // padded), S=padded, num_warps=4,
            )  # fmt: skip
        ctx.save_for_backward(logits, targets, derivatives)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        from mhsvm.ops.fused.bce_dice_kernels import bce_dice_bwd_kernel

        logits, targets, derivatives = ctx.saved_tensors
        maps, cells, _ = _sizes(logits)
        grad_logits = torch.empty_like(logits)
        with torch.cuda.device_of(logits):
            bce_dice_bwd_kernel[(-(-cells // _TILE), maps)](
                p_grad_loss=grad_loss, p_x=logits, p_t=targets, p_derivatives=derivatives, p_grad_x=grad_logits,
                cells=cells, bce_scale=ctx.scales[0], L=_TILE, num_warps=4,
            )  # fmt: skip
        return grad_logits, None, None, None, None


def _sizes(logits: Tensor) -> tuple[int, int, int]:
    """Number of maps, cells of a map, and cells of a chunk: whole tiles, so that no chunk ends inside one."""
    maps, cells = logits.shape[:2].numel(), logits.shape[2:].numel()
    return maps, cells, -(-cells // (_MAX_CHUNKS * _TILE)) * _TILE
