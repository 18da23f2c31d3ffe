"""GroupNorm of a map, then resizing, GELU and a skip connection, as a stage of a U-shaped network has them.

b batch, c channels in g groups, h w map, s chunks of cells.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.fused.output_dtype import norm_dtype
from mhsvm.ops.triton_support import unsupported_by_triton

RESIZES = ("keep", "halve", "double")
# Numbers of a tile: 8 a lane of 4 warps.
_TILE = 1024
# Chunks of a map's cells, each summed by a program of its own; every later program reads all their sums.
_MAX_CHUNKS = 64


def group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    eps: float = 1e-5,
    backend: str = "auto",
) -> Tensor:
    """GELU(resize(GroupNorm(x))) + skip.

    The backend "triton" computes it in two kernels each way; its gradients have the same bits in every run. GELU is
    the exact one, with erf.

    Args:
        x: (b, c, h, w), any float type; statistics are float32, or float64 for such an x.
        weight, bias: (c).
        groups: Number of groups, a divisor of c.
        resize: "keep"; "halve", the maximum of each 2 x 2 square, for even h and w; or "double", bilinear with corners
            on corners.
        skip: Shaped like the output; None adds nothing.
        eps: Added to the variance.
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        (b, c, h', w') with h' = h, h/2 or 2h, and w' in the same way, in the type that torch's operations give.
    Raises:
        ValueError: The shapes do not fit together, `resize` is unknown, or `backend` is unknown or cannot run here.
    Source: Wu & He 2018, arXiv 1803.08494; Hendrycks & Gimpel 2016, arXiv 1606.08415.
    """
    _check(x, weight, bias, groups, resize, skip)
    return GROUP_NORM_GELU(backend, x, weight, bias, groups=groups, resize=resize, skip=skip, eps=eps)


def group_norm_gelu_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`group_norm_gelu` by torch's operations."""
    x = F.group_norm(x, groups, weight, bias, eps)
    if resize == "halve":
        x = F.max_pool2d(x, 2)
    elif resize == "double":
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    x = F.gelu(x)
    return x if skip is None else x + skip


def triton_group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`group_norm_gelu` by kernels."""
    return _GroupNormGELU.apply(x, weight, bias, skip, groups, resize, eps, norm_dtype(x, skip))


GROUP_NORM_GELU = Operation("group_norm_gelu", group_norm_gelu_reference)
GROUP_NORM_GELU.register("triton", triton_group_norm_gelu, unsupported_reason=unsupported_by_triton, traceable=False)


def _check(x: Tensor, weight: Tensor, bias: Tensor, groups: int, resize: str, skip: Tensor | None) -> None:
    if resize not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}; received {resize!r}")
    if x.ndim != 4 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"x is (b, c, h, w) with c a multiple of groups={groups}; received {tuple(x.shape)}")
    _, c, h, w = x.shape
    if weight.shape != (c,) or bias.shape != (c,):
        raise ValueError(
            f"weight and bias have one number for each of {c} channels; received {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}"
        )
    if resize == "halve" and (h % 2 or w % 2):
        raise ValueError(f"a map to be halved has even sides; received {h} x {w}")
    if skip is not None and skip.shape != (shape := (*x.shape[:2], *resized(h, w, resize))):
        raise ValueError(f"skip is shaped like the output, {shape}; received {tuple(skip.shape)}")


class Cut(NamedTuple):
    """How a map is split: cells of the output, of a chunk of the map and of one of the output, and the tile."""

    cells_out: int
    chunk: int
    chunk_out: int
    tile: dict[str, int]


class _GroupNormGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, skip, groups, resize, eps, dtype):
        from mhsvm.ops.fused.group_norm_kernels import group_norm_fwd_kernel, group_norm_fwd_kernel_moments

        x, skip = _regular(x), None if skip is None else _regular(skip)
        weight, bias = weight.contiguous(), bias.contiguous()
        b, c, h, w = x.shape
        width, cut = c // groups, _cut(x, groups, resize)
        moments = x.new_empty((b, _MAX_CHUNKS, 2, cut.tile["G"]), dtype=torch.float32)
        y = _empty_map(x, (b, c, *resized(h, w, resize)), dtype)
        with torch.cuda.device_of(x):
            group_norm_fwd_kernel_moments[(-(-h * w // cut.chunk), b)](
                p_x=x, p_moments=moments, cells=h * w, chunk=cut.chunk, groups=groups, width=width,
                **_strides("s", x), **cut.tile, num_warps=4,
            )  # fmt: skip
            group_norm_fwd_kernel[(-(-cut.cells_out // cut.tile["L"]), b)](
                p_x=x, p_moments=moments, p_weight=weight, p_bias=bias, p_skip=skip, p_y=y, h=h, w=w, chunk=cut.chunk,
                groups=groups, width=width, eps=eps, cells_out=cut.cells_out, **_strides("s", x),
                **_strides("s_skip", skip), **_strides("s_y", y), RESIZE=resize, **cut.tile, num_warps=4,
            )  # fmt: skip
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.groups, ctx.resize, ctx.eps = groups, resize, eps
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.group_norm_kernels import group_norm_bwd_kernel, group_norm_bwd_kernel_sums

        x, weight, bias, moments = ctx.saved_tensors
        b, c, h, w = x.shape
        width, cut = c // ctx.groups, _cut(x, ctx.groups, ctx.resize)
        skip_grad, grad_y = grad_y if ctx.needs_input_grad[3] else None, _regular(grad_y)
        chunks_out = -(-cut.cells_out // cut.chunk_out)
        derivatives = moments.new_empty((b, c, cut.cells_out)) if ctx.resize == "double" else None
        channel_sums = moments.new_empty((b, chunks_out, 2, c))
        group_sums = torch.empty_like(moments)
        grad_x = _empty_map(x, x.shape, x.dtype)
        shared = {
            "p_grad_y": grad_y, "p_x": x, "p_moments": moments, "p_weight": weight, "p_bias": bias,
            "p_derivatives": derivatives, "p_group_sums": group_sums, "h": h, "w": w, "chunk": cut.chunk,
            "chunk_out": cut.chunk_out, "groups": ctx.groups, "width": width, "eps": ctx.eps,
            "cells_out": cut.cells_out, **_strides("s_grad", grad_y), **_strides("s", x), "RESIZE": ctx.resize,
            **cut.tile, "num_warps": 4,
        }  # fmt: skip
        cells = cut.cells_out if ctx.resize == "halve" else h * w
        with torch.cuda.device_of(x):
            group_norm_bwd_kernel_sums[(chunks_out, b)](p_channel_sums=channel_sums, **shared)
            group_norm_bwd_kernel[(-(-cells // cut.tile["L"]), b)](
                p_grad_x=grad_x, **_strides("s_grad_x", grad_x), **shared
            )
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
    # Whole tiles, so that no chunk ends inside one.
    chunk, chunk_out = (-(-cells // (_MAX_CHUNKS * step)) * step for cells in (h * w, h_out * w_out))
    tile = {"G": padded_groups, "J": padded_width, "L": step, "S": _MAX_CHUNKS}
    return Cut(h_out * w_out, chunk, chunk_out, tile)


def _regular(x: Tensor) -> Tensor:
    """The map with one stride from cell to cell."""
    return x if 1 in x.shape[2:] or x.stride(2) == x.shape[3] * x.stride(3) else x.contiguous()


def _empty_map(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty map in the memory order of x: channels last, or contiguous."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)


def _strides(prefix: str, x: Tensor | None) -> dict[str, int]:
    """Strides of the batch, a channel and a cell, by the kernels' names."""
    strides = (0, 0, 0) if x is None else (x.stride(0), x.stride(1), x.stride(3 if x.shape[3] > 1 else 2))
    return {f"{prefix}_{axis}": stride for axis, stride in zip("bcl", strides, strict=True)}
