"""Launches of the CPU kernels of GroupNorm with resizing, GELU and a skip connection, with gradients.

Inputs are float32. `resize` is KEEP, HALVE or DOUBLE of `resized_rows_cpu_kernels`.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.fused.group_norm_cpu_kernels import group_norm_bwd_cpu_kernel, group_norm_fwd_cpu_kernel
from mhsvm.ops.scan.cpu.compiled import flat, launch


class CpuGroupNormGELU(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, skip, groups, resize, size_out, eps):
        x, skip = _cells(x), None if skip is None else _cells(skip)
        weight, bias = weight.contiguous(), bias.contiguous()
        b, h, w, c = x.shape
        y, moments = x.new_empty(b, *size_out, c), x.new_empty(b, 2, c)
        tensors = {"x": x, "weight": weight, "bias": bias, "skip": skip, "y": y, "moments": moments}
        _launch(
            group_norm_fwd_cpu_kernel, tensors, x, groups, resize, size_out, eps=float(eps), use_skip=skip is not None
        )
        ctx.save_for_backward(x, weight, bias, moments)
        ctx.groups, ctx.resize, ctx.size_out = groups, resize, size_out
        return y.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        x, weight, bias, moments = ctx.saved_tensors
        grad_x, grad_parameters = torch.empty_like(x), torch.empty_like(moments)
        tensors = {"grad_y": _cells(grad_y), "x": x, "weight": weight, "bias": bias, "moments": moments}
        tensors |= {"grad_x": grad_x, "grad_parameters": grad_parameters}
        _launch(group_norm_bwd_cpu_kernel, tensors, x, ctx.groups, ctx.resize, ctx.size_out)
        grad_bias, grad_weight = grad_parameters.sum(0)
        skip_grad = grad_y if ctx.needs_input_grad[3] else None
        return grad_x.permute(0, 3, 1, 2), grad_weight, grad_bias, skip_grad, None, None, None, None


def _launch(
    kernel: Callable[..., None],
    tensors: dict[str, Tensor | None],
    x: Tensor,
    groups: int,
    resize: int,
    size_out: tuple[int, int],
    **options: object,
) -> None:
    b, h, w, c = x.shape
    h_out, w_out = size_out
    arguments = {name: flat(each) for name, each in tensors.items()}
    sizes = {"h": h, "w": w, "h_out": h_out, "w_out": w_out, "c": c, "groups": groups, "resize": resize}
    # a number of a map takes about as long as two state updates of a scan
    launch(kernel, {**arguments, **sizes, **options}, units=b, work=2 * x.numel())


def _cells(x: Tensor) -> Tensor:
    """(b, c, h, w) -> (b, h, w, c), contiguous."""
    return x.detach().permute(0, 2, 3, 1).contiguous()
