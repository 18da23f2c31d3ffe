"""Bias and SiLU of a map whose channels lie side by side, with gradients. Triton is imported where it first runs."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Pixels of a tile and its channels, which divide the networks' widths, so that no lane is idle.
_PIXELS, _CHANNELS = 64, 32
# Programs backward, each with sums of its own: as many as a large GPU holds at once. More were slower.
_MAX_PROGRAMS = 1024


def bias_silu(x: Tensor, bias: Tensor) -> Tensor:
    """`mhsvm.ops.fused.bias_silu.bias_silu`; its gradients have the same bits in every run."""
    return _BiasSiLU.apply(x, bias)


class _BiasSiLU(torch.autograd.Function):
    """No operator known to torch's compiler, which makes kernels of its own of this."""

    @staticmethod
    def forward(ctx, x, bias):
        from mhsvm.ops.fused.bias_silu_kernels import activate_kernel

        bias, y = bias.contiguous(), torch.empty_like(x)
        ctx.save_for_backward(x, bias)
        pixels, blocks, tiles = _cut(x)
        if tiles:
            with torch.cuda.device_of(x):
                activate_kernel[(blocks * tiles,)](x, bias, y, pixels, len(bias), P=_PIXELS, C=_CHANNELS, num_warps=4)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.bias_silu_kernels import differentiate_kernel

        x, bias = ctx.saved_tensors
        grad_y, grad_x = grad_y.permute(0, 2, 3, 1).contiguous(), torch.empty_like(x)
        pixels, blocks, tiles = _cut(x)
        parts = min(tiles, max(1, _MAX_PROGRAMS // blocks))
        sums = torch.empty((parts, len(bias)), dtype=torch.float32, device=x.device)
        if tiles:
            with torch.cuda.device_of(x):
                differentiate_kernel[(blocks * parts,)](
                    grad_y, x, bias, grad_x, sums, pixels, len(bias), P=_PIXELS, C=_CHANNELS, num_warps=4
                )
        return grad_x, sums.sum(0).to(bias.dtype)


def _cut(x: Tensor) -> tuple[int, int, int]:
    """Pixels of all maps, and the blocks of channels and tiles of pixels that they are cut into."""
    pixels, channels = x.numel() // x.shape[1], x.shape[1]
    return pixels, -(-channels // _CHANNELS), -(-pixels // _PIXELS)
