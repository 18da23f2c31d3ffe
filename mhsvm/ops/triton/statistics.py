"""The statistics over routes as operators of torch, with gradients, known to its compiler.

b batch, m heads, k routes, l cells, d channels of a head.
"""

import torch
from torch import Tensor

# Elements of a program: with 4 routes, 16 numbers a lane of 4 warps.
_BLOCK = 512


def route_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """`mhsvm.ops.route_statistics`; both results have the memory order (b, l, m, d), as the map goes on."""
    return _route_statistics(y)


@torch.library.custom_op("mhsvm::triton_route_statistics", mutates_args=(), schema="(Tensor y) -> (Tensor, Tensor)")
def _route_statistics(y):
    from mhsvm.ops.triton.statistics_kernels import measure_kernel

    total, variation = _empty_statistics(y)
    y = y.float().contiguous()
    with torch.cuda.device_of(y):
        measure_kernel[_grid(y)](y, total, variation, *_sizes(y), *total.stride()[:3], **_tile(y), num_warps=4)
    return total, variation


@_route_statistics.register_fake
def _empty_statistics(y):
    b, m, _, length, d = y.shape
    total, variation = (y.new_empty((b, length, m, d), dtype=torch.float32).transpose(1, 2) for _ in range(2))
    return total, variation


@torch.library.custom_op(
    "mhsvm::triton_route_statistics_backward",
    mutates_args=(),
    schema="(Tensor y, Tensor grad_total, Tensor grad_variation) -> Tensor",
)
def _route_statistics_backward(y, grad_total, grad_variation):
    from mhsvm.ops.triton.statistics_kernels import differentiate_kernel

    y = y.float().contiguous()
    grad_total, grad_variation = (x if x.stride(3) == 1 else x.contiguous() for x in (grad_total, grad_variation))
    grad_y = torch.empty_like(y)
    strides = (*grad_total.stride()[:3], *grad_variation.stride()[:3])
    with torch.cuda.device_of(y):
        differentiate_kernel[_grid(y)](
            y, grad_total, grad_variation, grad_y, *_sizes(y), *strides, **_tile(y), num_warps=4
        )
    return grad_y


@_route_statistics_backward.register_fake
def _(y, grad_total, grad_variation):
    return y.new_empty(y.shape, dtype=torch.float32)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_total, grad_variation):
    (y,) = ctx.saved_tensors
    return _route_statistics_backward(y, grad_total, grad_variation).to(y.dtype)


_route_statistics.register_autograd(_differentiate, setup_context=_save)


def _grid(y: Tensor) -> tuple[int, int]:
    b, m, _, length, d = y.shape
    return -(-length * d // _BLOCK), b * m


def _sizes(y: Tensor) -> tuple[int, int, int, int]:
    """Elements of a plane, routes, heads, channels."""
    _, m, k, length, d = y.shape
    return length * d, k, m, d


def _tile(y: Tensor) -> dict[str, int]:
    return {"K": 1 << (y.shape[2] - 1).bit_length(), "BLOCK": _BLOCK}
