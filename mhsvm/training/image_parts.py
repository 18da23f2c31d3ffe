"""Forward and backward passes on parts of a batch, each part in a thread of a CPU.

A small network is a thousand short operations. To divide each over the threads of torch costs a wake-up and a wait for
the slowest thread every time, most of all beside other busy processes. Divided by images, threads meet twice a step.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.dropout import _DropoutNd

from mhsvm.threads import even_parts, image_threads


def forward_in_parts(model: nn.Module, inputs: Tensor) -> Tensor:
    """Logits of a batch, whose backward pass runs in parts too; bits depend on the number of threads, not on timing.

    Args:
        model: Divided where it says by `has_independent_images` that images of a batch do not influence each other and
            that nothing is random; otherwise called as it is. So is any model on a GPU, on one thread, or on many.
        inputs: (b, c, h, w).
    """
    rows = even_parts(range(len(inputs)), num_threads=torch.get_num_threads())
    if len(rows) == 1 or not torch.is_grad_enabled() or not _is_divisible(model, inputs):
        return model(inputs)
    parts = [inputs[part[0] : part[-1] + 1] for part in rows]
    return _Divided.apply(model, parts, *(p for p in model.parameters() if p.requires_grad))


def _is_divisible(model: nn.Module, inputs: Tensor) -> bool:
    if inputs.device.type != "cpu" or inputs.requires_grad or torch.is_autocast_enabled("cpu"):
        return False
    # layers that were put into the network later: adapters with dropout, hooks, which expect the whole batch
    return getattr(model, "has_independent_images", False) and not any(
        isinstance(module, (_NormBase, _DropoutNd)) or module._forward_hooks or module._forward_pre_hooks
        for module in model.modules()
    )


class _Divided(torch.autograd.Function):
    """The graph of each part stays apart, so that each thread runs the backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, model: nn.Module, parts: Sequence[Tensor], *parameters: Tensor) -> Tensor:
        # threads have gradients enabled, also where this one has not
        with image_threads(min(len(parts), torch.get_num_threads())) as pool:
            ctx.outputs = list(pool.map(model, parts))
        ctx.parameters = parameters
        return torch.cat([output.detach() for output in ctx.outputs])

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Tensor) -> tuple[Tensor | None, ...]:
        outputs, ctx.outputs = ctx.outputs, None
        grads = grad_outputs[0].split([len(output) for output in outputs])

        def differentiate(output: Tensor, grad: Tensor) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(output, ctx.parameters, grad, allow_unused=True)

        with image_threads(min(len(outputs), torch.get_num_threads())) as pool:
            found = list(pool.map(differentiate, outputs, grads))
        return None, None, *map(_sum, zip(*found, strict=True))


def _sum(grads: tuple[Tensor | None, ...]) -> Tensor | None:
    """The sum over the parts, in their order."""
    used = [grad for grad in grads if grad is not None]
    if not used:
        return None
    total = used[0]
    for grad in used[1:]:
        total = total + grad
    return total
