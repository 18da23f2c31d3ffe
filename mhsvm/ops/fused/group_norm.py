"""GroupNorm of a map, then resizing, GELU and a skip connection: the end of a stage of a U-shaped network."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch._subclasses import FakeTensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.fused.output_dtype import norm_dtype
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

RESIZES = ("keep", "halve", "double")
# Numbers of a tile: 8 a lane of 4 warps.
_TILE = 1024
# Chunks of a map's cells, each summed by one program; every later program reads the sums of all chunks.
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

    The backends "triton" and "cpu" compute it in two kernels and one each way; their gradients have the same bits in
    every run. Second derivatives need the backend "reference". GELU is the exact one, with erf.

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
    # Not torch.nn.functional's, which refuses a single image with one value a group.
    return _finish(torch.group_norm(_centered(x, groups), groups, weight, bias, eps), resize, skip)


def portable_group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`group_norm_gelu` with the variance as the mean square of the centered map.

    Runtimes that have a GroupNorm compute it as a difference of large numbers, and others have none. ExecuTorch adds
    the numbers of a mean one after the other, which loses digits of a large map: hence the mean of means.
    """
    rows = x.unflatten(1, (groups, -1)).flatten(2, 3)  # (b, groups, h * c / groups, w)
    rows = rows - _mean(rows)
    rows = rows * torch.rsqrt(_mean(rows * rows) + eps)
    return _finish(rows.reshape(x.shape) * weight[:, None, None] + bias[:, None, None], resize, skip)


def _mean(rows: Tensor) -> Tensor:
    return rows.mean(3, keepdim=True).mean(2, keepdim=True)


def _finish(x: Tensor, resize: str, skip: Tensor | None) -> Tensor:
    """GELU(resize(x)) + skip."""
    if resize == "halve":
        x = F.max_pool2d(x, kernel_size=2, stride=2)
    elif resize == "double":
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    x = F.gelu(x)
    return x if skip is None else x + skip


def _centered(x: Tensor, groups: int) -> Tensor:
    """The map minus the mean of each group, where torch needs that for its digits.

    On the CPU, torch 2.14 and earlier compute the variance of channels-last maps as the difference of two large
    numbers: at a mean of 33 standard deviations, float32 is wrong by 8e-3. The norm of x - mean is that of x.
    """
    if x.device.type != "cpu" or x.is_contiguous():
        return x
    with torch.no_grad():
        mean = x.mean((2, 3)).unflatten(1, (groups, -1)).mean(2)  # (b, groups)
        shift = mean.repeat_interleave(x.shape[1] // groups, dim=1)[..., None, None]
    return x - shift


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


def cpu_group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`group_norm_gelu` by numba's kernels, in float32 and channels last; other inputs are converted.

    Tensors without memory, which torch's counters use, go to the reference.
    """
    if isinstance(x, FakeTensor):
        return group_norm_gelu_reference(x, weight, bias, groups=groups, resize=resize, skip=skip, eps=eps)
    from mhsvm.ops.fused.group_norm_cpu_launch import CpuGroupNormGELU

    dtype = norm_dtype(x, skip)
    x, weight, bias = x.float(), weight.float(), bias.float()
    skip = None if skip is None else skip.float()
    size_out = resized(x.shape[2], x.shape[3], resize)
    return CpuGroupNormGELU.apply(x, weight, bias, skip, groups, RESIZES.index(resize), size_out, eps).to(dtype)


def _unsupported_by_cpu(x: Tensor, *arguments: object, **options: object) -> str | None:
    if x.device.type != "cpu":
        return f"its kernels run on the CPU, and the map is on {x.device}"
    return "its kernels compute in float32, and the map is float64" if x.dtype == torch.float64 else None


def _is_channels_last(x: Tensor, *arguments: object, **options: object) -> bool:
    """Whether the CPU kernels read the map as it is."""
    return x.dtype == torch.float32 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


GROUP_NORM_GELU = Operation("group_norm_gelu", group_norm_gelu_reference)
GROUP_NORM_GELU.register(
    "cpu", cpu_group_norm_gelu, unsupported_reason=_unsupported_by_cpu, worthwhile=_is_channels_last, traceable=False
)
GROUP_NORM_GELU.register("triton", triton_group_norm_gelu, unsupported_reason=unsupported_by_triton, traceable=False)
GROUP_NORM_GELU.register("portable", portable_group_norm_gelu)


def _check(x: Tensor, weight: Tensor, bias: Tensor, groups: int, resize: str, skip: Tensor | None) -> None:
    if resize not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}; received {resize!r}")
    if x.ndim != 4 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"x is (b, c, h, w) with c a multiple of groups={groups}; received {tuple(x.shape)}")
    refuse_empty("x", x, "b, c, h, w")
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


class Tiling(NamedTuple):
    """Cells of the output map, of a chunk of the input and of one of the output, and the sizes of a tile."""

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
        width, tiling = c // groups, _tiling(x, groups, resize)
        moments = x.new_empty((b, _MAX_CHUNKS, 2, tiling.tile["G"]), dtype=torch.float32)
        y = _empty_map(x, (b, c, *resized(h, w, resize)), dtype)
        with torch.cuda.device_of(x):
            group_norm_fwd_kernel_moments[(-(-h * w // tiling.chunk), b)](
                p_x=x, p_moments=moments, cells=h * w, chunk=tiling.chunk, groups=groups, width=width,
                **_strides("s", x), **tiling.tile, num_warps=4,
            )  # fmt: skip
            group_norm_fwd_kernel[(-(-tiling.cells_out // tiling.tile["L"]), b)](
                p_x=x, p_moments=moments, p_weight=weight, p_bias=bias, p_skip=skip, p_y=y, h=h, w=w,
                chunk=tiling.chunk, groups=groups, width=width, eps=eps, cells_out=tiling.cells_out, **_strides("s", x),
                **_strides("s_skip", skip), **_strides("s_y", y), RESIZE=resize, **tiling.tile, num_warps=4,
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
        width, tiling = c // ctx.groups, _tiling(x, ctx.groups, ctx.resize)
        skip_grad, grad_y = grad_y if ctx.needs_input_grad[3] else None, _regular(grad_y)
        chunks_out = -(-tiling.cells_out // tiling.chunk_out)
        derivatives = moments.new_empty((b, c, tiling.cells_out)) if ctx.resize == "double" else None
        channel_sums = moments.new_empty((b, chunks_out, 2, c))
        group_sums = torch.empty_like(moments)
        grad_x = _empty_map(x, x.shape, x.dtype)
        shared = {
            "p_grad_y": grad_y, "p_x": x, "p_moments": moments, "p_weight": weight, "p_bias": bias,
            "p_derivatives": derivatives, "p_group_sums": group_sums, "h": h, "w": w, "chunk": tiling.chunk,
            "chunk_out": tiling.chunk_out, "groups": ctx.groups, "width": width, "eps": ctx.eps,
            "cells_out": tiling.cells_out, **_strides("s_grad", grad_y), **_strides("s", x), "RESIZE": ctx.resize,
            **tiling.tile, "num_warps": 4,
        }  # fmt: skip
        cells = tiling.cells_out if ctx.resize == "halve" else h * w
        with torch.cuda.device_of(x):
            group_norm_bwd_kernel_sums[(chunks_out, b)](p_channel_sums=channel_sums, **shared)
            group_norm_bwd_kernel[(-(-cells // tiling.tile["L"]), b)](
                p_grad_x=grad_x, **_strides("s_grad_x", grad_x), **shared
            )
        grad_weight, grad_bias = channel_sums.sum((0, 1))
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), skip_grad, None, None, None, None


def resized(h: int, w: int, resize: str) -> tuple[int, int]:
    """Size of a map of h x w after "keep", "halve" or "double"."""
    if resize == "halve":
        return h // 2, w // 2
    return (2 * h, 2 * w) if resize == "double" else (h, w)


def _tiling(x: Tensor, groups: int, resize: str) -> Tiling:
    _, c, h, w = x.shape
    padded_groups, padded_width = (1 << (n - 1).bit_length() for n in (groups, c // groups))
    step = max(1, _TILE // (padded_groups * padded_width))
    h_out, w_out = resized(h, w, resize)
    # Whole tiles, so that no chunk ends inside one.
    chunk, chunk_out = (-(-cells // (_MAX_CHUNKS * step)) * step for cells in (h * w, h_out * w_out))
    tile = {"G": padded_groups, "E": padded_width, "L": step, "S": _MAX_CHUNKS}
    return Tiling(h_out * w_out, chunk, chunk_out, tile)


def _regular(x: Tensor) -> Tensor:
    """The map, copied unless its cells have one stride."""
    return x if 1 in x.shape[2:] or x.stride(2) == x.shape[3] * x.stride(3) else x.contiguous()


def _empty_map(x: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """An empty map in the memory order of x: channels last, or contiguous."""
    last = x.stride(1) == 1 and x.shape[1] > 1
    layout = torch.channels_last if last else torch.contiguous_format
    return torch.empty(shape, dtype=dtype, device=x.device, memory_format=layout)


def _strides(prefix: str, x: Tensor | None) -> dict[str, int]:
    """Strides of the batch, a channel and a cell, by the names of the kernels' parameters."""
    strides = (0, 0, 0) if x is None else (x.stride(0), x.stride(1), x.stride(3 if x.shape[3] > 1 else 2))
    return {f"{prefix}_{axis}": stride for axis, stride in zip("bcl", strides, strict=True)}
