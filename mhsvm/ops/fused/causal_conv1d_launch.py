"""The causal convolution with SiLU as an operator of torch, with gradients, known to its compiler.

b batch, d channels, l steps, k taps.
"""

import torch
from torch import Tensor

# More taps would leave the registers no room backward.
MAX_TAPS = 8
# Numbers of a tile, and the most channels of one.
_TILE = 1024
_MAX_TILE_CHANNELS = 64


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`mhsvm.ops.fused.causal_conv1d`; the channels of a step lie side by side in the result."""
    return _causal_conv1d(x, weight, bias)


@torch.library.custom_op(
    "mhsvm::triton_causal_conv1d", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def _causal_conv1d(x, weight, bias):
    from mhsvm.ops.fused.causal_conv1d_kernels import convolve_kernel

    y = _empty_steps(x)
    with torch.cuda.device_of(x):
        convolve_kernel[_grid(x)](x, weight.contiguous(), bias, y, *_sizes(x), *_strides(x), **_tile(x, weight))
    return y


@_causal_conv1d.register_fake
def _(x, weight, bias):
    return _empty_steps(x)


@torch.library.custom_op(
    "mhsvm::triton_causal_conv1d_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor)",
)
def _causal_conv1d_backward(grad_y, x, weight, bias):
    from mhsvm.ops.fused.causal_conv1d_kernels import differentiate_kernel

    grad_x = _empty_steps(x)
    grid = _grid(x)
    sums = x.new_empty((grid[0] * grid[2], weight.numel() + bias.numel()), dtype=torch.float32)
    with torch.cuda.device_of(x):
        differentiate_kernel[grid](
            grad_y, x, weight.contiguous(), bias, grad_x, sums, *_sizes(x), *_strides(grad_y), *_strides(x),
            **_tile(x, weight),
        )  # fmt: skip
    return grad_x, sums.sum(0)


@_causal_conv1d_backward.register_fake
def _(grad_y, x, weight, bias):
    return _empty_steps(x), x.new_empty((weight.numel() + bias.numel(),), dtype=torch.float32)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_y):
    x, weight, bias = ctx.saved_tensors
    grad_x, sums = _causal_conv1d_backward(grad_y, x, weight, bias)
    grad_weight, grad_bias = sums.split((weight.numel(), bias.numel()))
    return grad_x, grad_weight.view(weight.shape).to(weight.dtype), grad_bias.to(bias.dtype)


_causal_conv1d.register_autograd(_differentiate, setup_context=_save)


def _empty_steps(x: Tensor) -> Tensor:
    """An empty tensor like x, a step's channels side by side."""
    b, d, length = x.shape
    return x.new_empty((b, length, d)).mT


def _tile(x: Tensor, weight: Tensor) -> dict[str, int]:
    channels = min(1 << (x.shape[1] - 1).bit_length(), _MAX_TILE_CHANNELS)
    return {"K": weight.shape[1], "T": _TILE // channels, "E": channels, "num_warps": 4}


def _grid(x: Tensor) -> tuple[int, int, int]:
    b, d, length = x.shape
    channels = min(1 << (d - 1).bit_length(), _MAX_TILE_CHANNELS)
    return -(-length // (_TILE // channels)), -(-d // channels), b


def _sizes(x: Tensor) -> tuple[int, int]:
    """Steps and channels."""
    return x.shape[2], x.shape[1]


def _strides(x: Tensor) -> tuple[int, int, int]:
    """Of the batch, a step and a channel."""
    return x.stride(0), x.stride(2), x.stride(1)
