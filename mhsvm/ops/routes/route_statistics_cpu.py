"""The statistics over routes as operators of torch, with gradients, known to its compiler."""

import torch
from torch import Tensor


def route_statistics(y: Tensor) -> tuple[Tensor, Tensor]:
    """`mhsvm.ops.route_statistics`."""
    return _forward(y)


@torch.library.custom_op("mhsvm::cpu_route_statistics", mutates_args=())
def _forward(y: Tensor) -> tuple[Tensor, Tensor]:
    # numba is imported by the first call, not by `import mhsvm.ops`.
    from mhsvm.ops.scan.cpu import launch

    total, variation = _empty_statistics(y)
    launch.measure_routes(y, total, variation)
    return total, variation


@_forward.register_fake
def _empty_statistics(y):
    b, m, _, length, d = y.shape
    return y.new_empty(b, m, length, d), y.new_empty(b, m, length, d)


@torch.library.custom_op("mhsvm::cpu_route_statistics_backward", mutates_args=())
def _backward(y: Tensor, grad_total: Tensor, grad_variation: Tensor) -> Tensor:
    from mhsvm.ops.scan.cpu import launch

    grad_y = _empty_gradient(y, grad_total, grad_variation)
    launch.differentiate_routes(y, grad_total, grad_variation, grad_y)
    return grad_y


@_backward.register_fake
def _empty_gradient(y, grad_total, grad_variation):
    return y.new_empty(y.shape)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_total, grad_variation):
    return _backward(*ctx.saved_tensors, grad_total, grad_variation)


_forward.register_autograd(_differentiate, setup_context=_save)
