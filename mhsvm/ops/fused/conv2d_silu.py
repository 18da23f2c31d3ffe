"""A depthwise convolution of a map and SiLU; the kernels add the bias and apply SiLU in one pass."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

# Cells of a tile and its channels, which divide the networks' widths, so that no lane is idle.
_CELLS, _CHANNELS = 64, 32
# Programs backward, each with its own partial sums: as many as a large GPU holds at once. More were slower.
_MAX_PROGRAMS = 1024


def conv2d_silu(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """SiLU of a depthwise convolution of a map; the map keeps its size.

    The backend "triton" calls torch's convolution without its bias. One kernel then adds the bias in float32 and
    applies SiLU; its gradients have the same bits in every run. "auto" takes it for channels-last maps only.

    Args:
        x: (b, c, h, w), any float type.
        weight: (c, 1, f, f), with an odd number of taps f a side.
        bias: (c).
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        (b, c, h, w), in the type that torch's convolution gives.
    Raises:
        ValueError: The shapes do not fit together, or `backend` is unknown or cannot run here.
    """
    if x.ndim != 4 or weight.ndim != 4 or not weight.shape[2] % 2 or bias.shape != x.shape[1:2]:
        _refuse(x, weight, bias)
    if weight.shape != (x.shape[1], 1, weight.shape[2], weight.shape[2]):
        _refuse(x, weight, bias)
    refuse_empty("x", x, "b, c, h, w")
    return CONV2D_SILU(backend, x, weight, bias)


def _refuse(x: Tensor, weight: Tensor, bias: Tensor) -> None:
    raise ValueError(
        "x is (b, c, h, w), weight (c, 1, f, f) with odd f, bias (c); received "
        f"{tuple(x.shape)}, {tuple(weight.shape)}, {tuple(bias.shape)}"
    )


def conv2d_silu_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d_silu` by torch's operations."""
    return F.silu(F.conv2d(x, weight, bias, padding=weight.shape[2] // 2, groups=len(weight)))


def triton_conv2d_silu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`conv2d_silu` by torch's convolution and kernels."""
    y = F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=len(weight))
    return bias_silu(y.contiguous(memory_format=torch.channels_last), bias)


def bias_silu(x: Tensor, bias: Tensor) -> Tensor:
    """SiLU(x + bias) of a channels-last map, by kernels."""
    return _BiasSiLU.apply(x, bias)


def _is_channels_last(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    return x.permute(0, 2, 3, 1).is_contiguous()


CONV2D_SILU = Operation("conv2d_silu", conv2d_silu_reference)
CONV2D_SILU.register(
    "triton",
    triton_conv2d_silu,
    unsupported_reason=unsupported_by_triton,
    worthwhile=_is_channels_last,
    traceable=False,
)


class _BiasSiLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, bias):
        from mhsvm.ops.fused.conv2d_silu_kernels import conv2d_silu_fwd_kernel

        bias, y = bias.contiguous(), torch.empty_like(x)
        ctx.save_for_backward(x, bias)
        cells, blocks, tiles = _sizes(x)
        if tiles:
            with torch.cuda.device_of(x):
                conv2d_silu_fwd_kernel[(blocks * tiles,)](
                    p_x=x, p_bias=bias, p_y=y, cells=cells, channels=len(bias), L=_CELLS, C=_CHANNELS, num_warps=4
                )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.conv2d_silu_kernels import conv2d_silu_bwd_kernel

        x, bias = ctx.saved_tensors
        grad_y, grad_x = grad_y.permute(0, 2, 3, 1).contiguous(), torch.empty_like(x)
        cells, blocks, tiles = _sizes(x)
        parts = min(tiles, max(1, _MAX_PROGRAMS // blocks))
        sums = torch.empty((parts, len(bias)), dtype=torch.float32, device=x.device)
        if tiles:
            with torch.cuda.device_of(x):
                conv2d_silu_bwd_kernel[(blocks * parts,)](
                    p_grad_y=grad_y, p_x=x, p_bias=bias, p_grad_x=grad_x, p_sums=sums, cells=cells,
                    channels=len(bias), L=_CELLS, C=_CHANNELS, num_warps=4,
                )  # fmt: skip
        return grad_x, sums.sum(0).to(bias.dtype)


def _sizes(x: Tensor) -> tuple[int, int, int]:
    """Cells of all maps, and their blocks of channels and tiles of cells."""
    cells, channels = x.numel() // x.shape[1], x.shape[1]
    return cells, -(-channels // _CHANNELS), -(-cells // _CELLS)
