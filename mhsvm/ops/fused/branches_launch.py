"""The norm around parallel branches, with gradients. Triton is imported where it first runs.

b batch, l cells, p branches of v channels, c = p*v, n programs of a backward kernel. The sums of both norms and of the
residual's scale are one: the split hands its parameters to the join as n equal rows, one for each program of the join's
backward kernel, whose sums are the gradient of these rows; the split's programs go on from there.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers of a tile, for 4 warps; backward also holds the sums over cells.
_TILE = 1024
_BACKWARD_TILE = 512
# Programs backward, each with sums of its own: as many as keep a large GPU busy.
_MAX_PROGRAMS = 512


@dataclass(frozen=True)
class Cut:
    """How b samples of l cells are cut into tiles.

    Attributes:
        sizes: l, p and v.
        tiles, backward_tiles: Number of tiles.
        programs: Number of a backward kernel's programs, n.
        tile, backward_tile: What the kernels are compiled for.
    """

    sizes: tuple[int, int, int]
    tiles: int
    backward_tiles: int
    programs: int
    tile: dict[str, int]
    backward_tile: dict[str, int]


def split_norm(
    x: Tensor, weight: Tensor, bias: Tensor, skip_scale: Tensor, *, branches: int, epsilon: float, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """`mhsvm.ops.fused.branches.split_norm` of a map (b, c, l), and what its join needs.

    Returns:
        The sequences (b*p, l, v) twice, for the mixer and as residual, and the rows of parameters.
    """
    return _SplitNorm.apply(x, weight, bias, skip_scale, branches, epsilon, dtype)


def join_norm(
    mixed: Tensor, residual: Tensor, rows: Tensor, *, branches: int, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """`mhsvm.ops.fused.branches.join_norm` of sequences (b*p, l, v): (b, l, c)."""
    return _JoinNorm.apply(mixed, residual, rows, branches, epsilon, dtype)


class _SplitNorm(torch.autograd.Function):
    """No operator known to torch's compiler, which makes kernels of its own of this."""

    @staticmethod
    def forward(ctx, x, weight, bias, skip_scale, branches, epsilon, dtype):
        from mhsvm.ops.fused.branches_kernels import split_kernel

        b, c, length = x.shape
        cut = _cut(b, length, branches, c // branches)
        parts = x.new_empty((b * branches, length, c // branches), dtype=dtype)
        row = x.new_empty(_row_length(c), dtype=torch.float32)
        if cut.tiles:
            with torch.cuda.device_of(x):
                split_kernel[(cut.tiles,)](
                    x, weight.contiguous(), bias.contiguous(), skip_scale, parts, row, *cut.sizes, epsilon, *x.stride(),
                    **cut.tile,
                )  # fmt: skip
        ctx.cut, ctx.epsilon = cut, epsilon
        ctx.save_for_backward(x, weight, bias, skip_scale)
        ctx.set_materialize_grads(False)
        # Views, so that torch refuses a mixer that changes its input in place, and with it the residual.
        return parts.view_as(parts), parts.view_as(parts), row.expand(cut.programs, -1)

    @staticmethod
    @once_differentiable
    def backward(ctx, *grads):
        from mhsvm.ops.fused.branches_kernels import split_backward_kernel

        x, weight, bias, skip_scale = ctx.saved_tensors
        c, cut = len(weight), ctx.cut
        grad_parts, grad_residual, grad_rows = (None if grad is None else grad.contiguous() for grad in grads)
        grad_x, sums = torch.empty_like(x), x.new_empty((cut.programs, _row_length(c)), dtype=torch.float32)
        if cut.programs:
            with torch.cuda.device_of(x):
                split_backward_kernel[(cut.programs,)](
                    grad_parts, grad_residual, grad_rows, x, weight.contiguous(), grad_x, sums, cut.backward_tiles,
                    *cut.sizes, ctx.epsilon, *x.stride(), *grad_x.stride(), **cut.backward_tile,
                )  # fmt: skip
        grad_weight, grad_bias, rest = sums.sum(0).split((c, c, _row_length(c) - 2 * c))
        grad_scale = rest[:1].view(skip_scale.shape).to(skip_scale.dtype)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_scale, None, None, None


class _JoinNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, mixed, residual, rows, branches, epsilon, dtype):
        from mhsvm.ops.fused.branches_kernels import join_kernel

        sequences, length, width = mixed.shape
        b = sequences // branches
        cut = _cut(b, length, branches, width)
        ctx.cut, ctx.epsilon = cut, epsilon
        ctx.save_for_backward(mixed, residual, rows)
        y = mixed.new_empty((b, length, branches * width), dtype=dtype)
        if cut.tiles:
            with torch.cuda.device_of(mixed):
                join_kernel[(cut.tiles,)](
                    mixed.contiguous(), residual.contiguous(), rows, y, *cut.sizes, epsilon, **cut.tile
                )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.branches_kernels import join_backward_kernel

        mixed, residual, rows = ctx.saved_tensors
        cut = ctx.cut
        mixed, residual = mixed.contiguous(), residual.contiguous()
        grad_mixed, grad_residual = torch.empty_like(mixed), torch.empty_like(residual)
        sums = torch.empty_like(rows, memory_format=torch.contiguous_format)
        if cut.programs:
            with torch.cuda.device_of(mixed):
                join_backward_kernel[(cut.programs,)](
                    grad_y.contiguous(), mixed, residual, rows, grad_mixed, grad_residual, sums, cut.backward_tiles,
                    *cut.sizes, ctx.epsilon, **cut.backward_tile,
                )  # fmt: skip
        return grad_mixed, grad_residual, sums, None, None, None


def _cut(b: int, length: int, branches: int, width: int) -> Cut:
    padded = 1 << (width - 1).bit_length()
    columns = padded << (branches - 1).bit_length()

    def tile(numbers: int) -> dict[str, int]:
        return {"ROWS": max(1, numbers // columns), "V": padded, "C": columns, "num_warps": 4}

    forward, backward = tile(_TILE), tile(_BACKWARD_TILE)
    tiles, backward_tiles = (b * -(-length // cells["ROWS"]) for cells in (forward, backward))
    programs = min(backward_tiles, _MAX_PROGRAMS)
    return Cut((length, branches, width), tiles, backward_tiles, programs, forward, backward)


def _row_length(channels: int) -> int:
    from mhsvm.ops.fused.branches_kernels import PAD

    return 2 * channels + PAD.value
