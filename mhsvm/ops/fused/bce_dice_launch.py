"""Binary cross-entropy and Dice loss with their gradient. Triton is imported where it first runs."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pixels of a tile: 8 a lane of 4 warps.
_TILE = 1024
# Chunks of a map's pixels that are summed side by side.
_MAX_CHUNKS = 64
# Numbers of a tile in which the chunks' sums are added up.
_FINISH_TILE = 1024


def bce_dice(logits: Tensor, targets: Tensor, *, bce_weight: float, dice_weight: float, smooth: float) -> Tensor:
    """`mhsvm.ops.fused.bce_dice.bce_dice`; loss and gradient have the same bits in every run."""
    return _BCEDice.apply(logits, targets, bce_weight, dice_weight, smooth)


class _BCEDice(torch.autograd.Function):
    """No operator known to torch's compiler, which makes kernels of its own of this."""

    @staticmethod
    def forward(ctx, logits, targets, bce_weight, dice_weight, smooth):
        from mhsvm.ops.fused.bce_dice_kernels import finish_kernel, sum_kernel

        logits, targets = logits.contiguous(), targets.contiguous()
        maps, pixels, chunk = _cut(logits)
        chunks = -(-pixels // chunk)
        sums = torch.empty((maps, chunks, 3), dtype=torch.float32, device=logits.device)
        slopes, loss = sums.new_empty((maps, 2)), sums.new_empty(())
        # Of what the maps' sums are multiplied by: the mean over all pixels, and that over the maps.
        ctx.weights = bce_weight / (maps * pixels), dice_weight / maps
        padded = 1 << (chunks - 1).bit_length()
        with torch.cuda.device_of(logits):
            sum_kernel[(chunks, maps)](logits, targets, sums, pixels, chunk, chunks, TILE=_TILE, num_warps=4)
            finish_kernel[(1,)](
                sums, slopes, loss, maps, chunks, *ctx.weights, smooth,
                MAPS=max(1, _FINISH_TILE // padded), CHUNKS=padded, num_warps=4,
            )  # fmt: skip
        ctx.save_for_backward(logits, targets, slopes)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_loss):
        from mhsvm.ops.fused.bce_dice_kernels import differentiate_kernel

        logits, targets, slopes = ctx.saved_tensors
        maps, pixels, _ = _cut(logits)
        grad_logits = torch.empty_like(logits)
        with torch.cuda.device_of(logits):
            differentiate_kernel[(-(-pixels // _TILE), maps)](
                grad_loss, logits, targets, slopes, grad_logits, pixels, ctx.weights[0], TILE=_TILE, num_warps=4
            )
        return grad_logits, None, None, None, None


def _cut(logits: Tensor) -> tuple[int, int, int]:
    """Maps, pixels of one, and pixels of a chunk: whole tiles, so that none is cut by the end of a chunk."""
    maps, pixels = logits.shape[:2].numel(), logits.shape[2:].numel()
    return maps, pixels, -(-pixels // (_MAX_CHUNKS * _TILE)) * _TILE
