"""GroupNorm, resizing, GELU and a skip connection, with gradients. Triton is imported where it first runs.

b batch, c channels in g groups, h w map, s chunks of pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers of a tile: 8 a lane of 4 warps.
_TILE = 1024
# Chunks of a map's pixels that are summed side by side; every program behind reads all their sums.
_MAX_CHUNKS = 64


class Cut(NamedTuple):
    """How a map is cut: pixels of it and of the output, those of a chunk of each, and the tile."""

    pixels_out: int
    chunk: int
    chunk_out: int
    tile: dict[str, int | str]


def group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip: Tensor | None,
    *,
    groups: int,
    resize: str,
    epsilon: float,
    dtype: torch.dtype,
) -> Tensor:
    """`mhsvm.ops.group_norm_gelu`; its gradients have the same bits in every run."""
    return _GroupNormGELU.apply(x, weight, bias, skip, groups, resize, epsilon, dtype)


class _GroupNormGELU(torch.autograd.Function):
    """No operator known to torch's compiler, which makes kernels of its own of this."""

    @staticmethod
    def forward(ctx, x, weight, bias, skip, groups, resize, epsilon, dtype):
        from mhsvm.ops.fused.group_norm_kernels import apply_kernel, measure_kernel

        x, skip = _regular(x), None if skip is None else _regular(skip)
        b, c, h, w = x.shape
        width, cut = c // groups, _cut(x, groups, resize)
        moments = x.new_empty((b, _MAX_CHUNKS, 2, cut.tile["G"]), dtype=torch.float32)
        y = _empty_map(x, (b, c, *resized(h, w, resize)), dtype)
        with torch.cuda.device_of(x):
            measure_kernel[(-(-h * w // cut.chunk), b)](
                x, moments, h * w, cut.chunk, groups, width, *_strides(x), **_without_resize(cut.tile), num_warps=4
            )
            apply_kernel[(-(-cut.pixels_out // cut.tile["P"]), b)](
                x, moments, weight, bias, skip, y, h, w, cut.chunk, groups, width, epsilon,
                *_strides(x), *_strides(skip), *_strides(y), cut.pixels_out, **cut.tile, num_warps=4,
            )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.groups, ctx.resize, ctx.epsilon = groups, resize, epsilon
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.group_norm_kernels import differentiate_kernel, sum_kernel

        x, weight, bias, moments = ctx.saved_tensors
        b, c, h, w = x.shape
        width, cut = c // ctx.groups, _cut(x, ctx.groups, ctx.resize)
        skip_grad, grad_y = grad_y if ctx.needs_input_grad[3] else None, _regular(grad_y)
        chunks_out = -(-cut.pixels_out // cut.chunk_out)
        slopes = moments.new_empty((b, c, cut.pixels_out)) if ctx.resize == "double" else None
        channel_sums = moments.new_empty((b, chunks_out, 2, c))
        group_sums = torch.empty_like(moments)
        grad_x = _empty_map(x, x.shape, x.dtype)
        sizes = (ctx.groups, width, ctx.epsilon, *_strides(grad_y), *_strides(x))
        pixels = cut.pixels_out if ctx.resize == "halve" else h * w
        with torch.cuda.device_of(x):
            sum_kernel[(chunks_out, b)](
                grad_y, x, moments, weight, bias, slopes, channel_sums, group_sums, h, w, cut.chunk, cut.chunk_out,
                *sizes, cut.pixels_out, **cut.tile, num_warps=4,
            )  # fmt: skip
            differentiate_kernel[(-(-pixels // cut.tile["P"]), b)](
                grad_y, x, moments, weight, bias, slopes, group_sums, grad_x, h, w, cut.chunk, cut.chunk_out,
                cut.pixels_out, *sizes, *_strides(grad_x), **cut.tile, num_warps=4,
            )  # fmt: skip
        grad_weight, grad_bias = channel_sums.sum((0, 1))
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), skip_grad, None, None, None, None


def resized(h: int, w: int, resize: str) -> tuple[int, int]:
    """Size of a map of h x w after "keep", "halve" or "double"."""
    if resize == "halve":
        return h // 2, w // 2
    return (2 * h, 2 * w) if resize == "double" else (h, w)


def _cut(x: Tensor, groups: int, resize: str) -> Cut:
    _, c, h, w = x.shape
    padded_groups, padded_width = (1 << (n - 1).bit_length() for n in (groups, c // groups))
    step = max(1, _TILE // (padded_groups * padded_width))
    h_out, w_out = resized(h, w, resize)
    # Whole tiles, so that none is cut by the end of a chunk.
    chunk, chunk_out = (-(-pixels // (_MAX_CHUNKS * step)) * step for pixels in (h * w, h_out * w_out))
    tile = {"RESIZE": resize, "G": padded_groups, "J": padded_width, "P": step, "S": _MAX_CHUNKS}
    return Cut(h_out * w_out, chunk, chunk_out, tile)


def _without_resize(tile: dict[str, int | str]) -> dict[str, int | str]:
    return {name: value for name, value in tile.items() if name != "RESIZE"}


def _regular(x: Tensor) -> Tensor:
    """The map with one stride from pixel to pixel."""
    return x if 1 in x.shape[2:] or x.stride(2) == x.shape[3] * x.stride(3) else x.contiguous()


def _empty_map(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty map in the memory order of x: a pixel's channels side by side, or a channel's pixels."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)


def _strides(x: Tensor | None) -> tuple[int, int, int]:
    """Of the batch, a channel and a pixel."""
    return (0, 0, 0) if x is None else (x.stride(0), x.stride(1), x.stride(3 if x.shape[3] > 1 else 2))
