"""The norms before and after parallel branches: of a map, split into sequences, and of the joined sequences.

A map has p branches of v channels, c = p * v.

Both norms have the same parameters, so their backward kernels share one set of partial sums. The split passes its
parameters to the join as equal rows, one for each program of the join's backward kernel. The partial sums of these
programs are the gradient of the rows, and the programs of the split add theirs.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.fused.output_dtype import autocast_dtype, norm_dtype
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

# Numbers of a tile, for 4 warps; backward also holds the sums over cells.
_TILE = 1024
_BACKWARD_TILE = 512
# Programs backward, each with its own partial sums: as many as keep a large GPU busy.
_MAX_PROGRAMS = 512


class Branches(NamedTuple):
    """A map split into sequences, from `split_norm`.

    Attributes:
        parts: (b*p, l, v), a sequence for each branch of each sample.
        residual: The same numbers, which `join_norm` adds to the mixed sequences. It is a separate output, so that no
            separate kernel adds its gradient to that of `parts`.
        weight, bias, skip_scale, eps: The arguments of `split_norm`.
        rows: The parameters in the layout of the kernels of `join_norm`; None after the reference.
    """

    parts: Tensor
    residual: Tensor
    weight: Tensor
    bias: Tensor
    skip_scale: Tensor
    eps: float
    rows: Tensor | None = None


def split_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    skip_scale: Tensor,
    *,
    branches: int,
    eps: float = 1e-5,
    backend: str = "auto",
) -> Branches:
    """LayerNorm over the channels of each cell, then the split into branches: the input of a mixer of sequences.

    The backend "triton" computes it in one kernel each way, which reads a map of any strides.

    Args:
        x: Map (b, c, *spatial), any float type; statistics are float32, or float64 for such an x.
        weight, bias: (c).
        skip_scale: Factor of the residual in `join_norm`, one number.
        branches: Number of branches p, a divisor of c.
        eps: Added to the variance.
        backend: As in `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The shapes do not fit together, or `backend` is unknown or cannot run here.
    Source: Wu et al. 2024, arXiv 2403.20035; Ba et al. 2016, arXiv 1607.06450.
    """
    if x.ndim < 3 or branches < 1 or x.shape[1] % branches:
        raise ValueError(f"x is (b, c, *spatial) with c a multiple of branches={branches}; received {tuple(x.shape)}")
    if weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2] or skip_scale.numel() != 1:
        raise ValueError(
            f"weight and bias have one number for each of {x.shape[1]} channels, skip_scale has one; received "
            f"{tuple(weight.shape)}, {tuple(bias.shape)}, {tuple(skip_scale.shape)}"
        )
    refuse_empty("weight", weight, "c", batch=False)
    return SPLIT_NORM(backend, x, weight, bias, skip_scale, branches=branches, eps=eps)


def join_norm(mixed: Tensor, branches: Branches, *, autocast_output: bool = False, backend: str = "auto") -> Tensor:
    """The same LayerNorm of each cell, now of mixed + skip_scale * residual with the branches concatenated.

    Args:
        mixed: (b*p, l, v), a mixer's output for `branches.parts`.
        branches: From `split_norm`.
        autocast_output: Under autocast, return its 16-bit type instead of float32: for a following linear layer,
            which would round to that type itself.
        backend: As in `mhsvm.ops.selective_scan`, the same as that of `split_norm`.
    Returns:
        (b, l, c), in the type that torch's operations give; with `autocast_output` under autocast in autocast's.
    Raises:
        ValueError: `mixed` has another shape than the parts, or `backend` is unknown or cannot run here.
    """
    if mixed.shape != branches.residual.shape:
        raise ValueError(
            f"a mixer keeps the shape of the sequences, {tuple(branches.residual.shape)}; received {tuple(mixed.shape)}"
        )
    return JOIN_NORM(backend, mixed, branches, autocast_output=autocast_output)


def split_norm_reference(
    x: Tensor, weight: Tensor, bias: Tensor, skip_scale: Tensor, *, branches: int, eps: float = 1e-5
) -> Branches:
    """`split_norm` by torch's operations."""
    rows = F.layer_norm(x.flatten(2).transpose(1, 2), weight.shape, weight, bias, eps)  # (b, l, c)
    parts = rows.unflatten(2, (branches, -1)).transpose(1, 2).flatten(0, 1)  # (b*p, l, v)
    return Branches(parts, parts, weight, bias, skip_scale, eps)


def join_norm_reference(mixed: Tensor, branches: Branches, *, autocast_output: bool = False) -> Tensor:
    """`join_norm` by torch's operations."""
    _, residual, weight, bias, skip_scale, eps, _ = branches
    num_branches = len(weight) // mixed.shape[2]
    parts = (mixed + skip_scale * residual).unflatten(0, (mixed.shape[0] // num_branches, num_branches))
    y = F.layer_norm(parts.transpose(1, 2).flatten(2), weight.shape, weight, bias, eps)  # (b, l, c)
    dtype = autocast_dtype(y) if autocast_output else None
    return y if dtype is None else y.to(dtype)


def triton_split_norm(
    x: Tensor, weight: Tensor, bias: Tensor, skip_scale: Tensor, *, branches: int, eps: float = 1e-5
) -> Branches:
    """`split_norm` by kernels."""
    parts, residual, rows = _SplitNorm.apply(x.flatten(2), weight, bias, skip_scale, branches, eps, norm_dtype(x))
    return Branches(parts, residual, weight, bias, skip_scale, eps, rows)


def triton_join_norm(mixed: Tensor, branches: Branches, *, autocast_output: bool = False) -> Tensor:
    """`join_norm` by kernels."""
    dtype = norm_dtype(mixed, autocast_output=autocast_output)
    if autocast_dtype(mixed) is None:
        dtype = torch.promote_types(dtype, torch.result_type(branches.skip_scale, branches.residual))
    num_branches = len(branches.weight) // mixed.shape[2]
    return _JoinNorm.apply(mixed, branches.residual, branches.rows, num_branches, branches.eps, dtype)


def _unjoinable_by_triton(mixed: Tensor, branches: Branches, **options: bool) -> str | None:
    if branches.rows is None:
        return "another backend split the map; use the same one for both"
    return unsupported_by_triton(mixed)


SPLIT_NORM = Operation("split_norm", split_norm_reference)
SPLIT_NORM.register("triton", triton_split_norm, unsupported_reason=unsupported_by_triton, traceable=False)
JOIN_NORM = Operation("join_norm", join_norm_reference)
JOIN_NORM.register("triton", triton_join_norm, unsupported_reason=_unjoinable_by_triton, traceable=False)


@dataclass(frozen=True)
class Tiles:
    """The tiles of b samples of l cells, and the programs that compute them.

    Attributes:
        sizes: l, p and v, by the names of the kernels' parameters.
        num, backward_num: Number of tiles.
        programs: Number of a backward kernel's programs.
        tile, backward_tile: Compile-time sizes of the kernels.
    """

    sizes: dict[str, int]
    num: int
    backward_num: int
    programs: int
    tile: dict[str, int]
    backward_tile: dict[str, int]


class _SplitNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, skip_scale, branches, eps, dtype):
        from mhsvm.ops.fused.branches_kernels import split_norm_fwd_kernel

        b, c, length = x.shape
        s_b, s_c, s_l = x.stride()
        tiles = _tiles(b, length, branches, c // branches)
        parts = x.new_empty((b * branches, length, c // branches), dtype=dtype)
        row = x.new_empty(_row_length(c), dtype=torch.float32)
        if tiles.num:
            with torch.cuda.device_of(x):
                split_norm_fwd_kernel[(tiles.num,)](
                    p_x=x, p_weight=weight.contiguous(), p_bias=bias.contiguous(), p_scale=skip_scale, p_parts=parts,
                    p_row=row, eps=eps, s_b=s_b, s_c=s_c, s_l=s_l, **tiles.sizes, **tiles.tile,
                )  # fmt: skip
        ctx.tiles, ctx.eps = tiles, eps
        ctx.save_for_backward(x, weight, bias, skip_scale)
        ctx.set_materialize_grads(False)
        # Views, so that torch refuses a mixer that changes its input, and with it the residual, in place.
        return parts.view_as(parts), parts.view_as(parts), row.expand(tiles.programs, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        from mhsvm.ops.fused.branches_kernels import split_norm_bwd_kernel

        x, weight, bias, skip_scale = ctx.saved_tensors
        c, tiles = len(weight), ctx.tiles
        grad_parts, grad_residual, grad_rows = (None if grad is None else grad.contiguous() for grad in grads)
        grad_x, sums = torch.empty_like(x), x.new_empty((tiles.programs, _row_length(c)), dtype=torch.float32)
        (s_b, s_c, s_l), (s_grad_b, s_grad_c, s_grad_l) = x.stride(), grad_x.stride()
        if tiles.programs:
            with torch.cuda.device_of(x):
                split_norm_bwd_kernel[(tiles.programs,)](
                    p_grad_parts=grad_parts, p_grad_residual=grad_residual, p_grad_row=grad_rows, p_x=x,
                    p_weight=weight.contiguous(), p_grad_x=grad_x, p_sums=sums, num_tiles=tiles.backward_num,
                    eps=ctx.eps, s_b=s_b, s_c=s_c, s_l=s_l, s_grad_b=s_grad_b, s_grad_c=s_grad_c, s_grad_l=s_grad_l,
                    **tiles.sizes, **tiles.backward_tile,
                )  # fmt: skip
        grad_weight, grad_bias, rest = sums.sum(0).split((c, c, _row_length(c) - 2 * c))
        grad_scale = rest[:1].view(skip_scale.shape).to(skip_scale.dtype)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_scale, None, None, None


class _JoinNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mixed, residual, rows, branches, eps, dtype):
        from mhsvm.ops.fused.branches_kernels import join_norm_fwd_kernel

        sequences, length, width = mixed.shape
        b = sequences // branches
        tiles = _tiles(b, length, branches, width)
        ctx.tiles, ctx.eps = tiles, eps
        ctx.save_for_backward(mixed, residual, rows)
        y = mixed.new_empty((b, length, branches * width), dtype=dtype)
        if tiles.num:
            with torch.cuda.device_of(mixed):
                join_norm_fwd_kernel[(tiles.num,)](
                    p_mixed=mixed.contiguous(), p_residual=residual.contiguous(), p_row=rows, p_y=y, eps=eps,
                    **tiles.sizes, **tiles.tile,
                )  # fmt: skip
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.branches_kernels import join_norm_bwd_kernel

        mixed, residual, rows = ctx.saved_tensors
        tiles = ctx.tiles
        mixed, residual = mixed.contiguous(), residual.contiguous()
        grad_mixed, grad_residual = torch.empty_like(mixed), torch.empty_like(residual)
        sums = torch.empty_like(rows, memory_format=torch.contiguous_format)
        if tiles.programs:
            with torch.cuda.device_of(mixed):
                join_norm_bwd_kernel[(tiles.programs,)](
                    p_grad_y=grad_y.contiguous(), p_mixed=mixed, p_residual=residual, p_row=rows,
                    p_grad_mixed=grad_mixed, p_grad_residual=grad_residual, p_sums=sums, num_tiles=tiles.backward_num,
                    eps=ctx.eps, **tiles.sizes, **tiles.backward_tile,
                )  # fmt: skip
        return grad_mixed, grad_residual, sums, None, None, None


def _tiles(b: int, length: int, branches: int, width: int) -> Tiles:
    padded = 1 << (width - 1).bit_length()
    columns = padded << (branches - 1).bit_length()

    def tile(numbers: int) -> dict[str, int]:
        return {"L": max(1, numbers // columns), "V": padded, "C": columns, "num_warps": 4}

    forward, backward = tile(_TILE), tile(_BACKWARD_TILE)
    num, backward_num = (b * -(-length // cells["L"]) for cells in (forward, backward))
    programs = min(backward_num, _MAX_PROGRAMS)
    sizes = {"length": length, "branches": branches, "width": width}
    return Tiles(sizes, num, backward_num, programs, forward, backward)


def _row_length(channels: int) -> int:
    from mhsvm.ops.fused.branches_kernels import PAD

    return 2 * channels + PAD.value
