"""Layers that an operation may replace: those that nothing from outside has changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn
from torch.nn.modules import module as torch_module

from mhsvm.layers.layer_norm import LayerNorm

_CLASSES = (nn.Linear, nn.Conv1d, nn.Conv2d, LayerNorm)

_global_hooks_ignored = ContextVar("_global_hooks_ignored", default=False)


@contextmanager
def global_hooks_ignored() -> Iterator[None]:
    """In the block, hooks of all modules change nothing: for a counter that measures the operations as they run."""
    token = _global_hooks_ignored.set(True)
    try:
        yield
    finally:
        _global_hooks_ignored.reset(token)


def has_global_hooks() -> bool:
    """Whether there are hooks on the calls of all modules. torch 2.6 has no function that says so."""
    return bool(
        torch_module._global_forward_pre_hooks
        or torch_module._global_forward_hooks
        or torch_module._global_backward_pre_hooks
        or torch_module._global_backward_hooks
    )


def is_plain(layer: nn.Module, *, bias: bool = True) -> bool:
    """Whether a call of the layer would do nothing but apply its weight and, with `bias`, its bias.

    Then an operation may read these and compute several layers at once. Any other layer has to be called: adapters
    (LoRA), parametrizations and quantization change its class or its `forward`; pruning, old weight norms, counters and
    probes register hooks.
    """
    return (
        type(layer) in _CLASSES
        and (layer.bias is not None) == bias
        and "forward" not in vars(layer)
        and not (layer._forward_hooks or layer._forward_pre_hooks)
        and not (layer._backward_hooks or layer._backward_pre_hooks)
        and (not has_global_hooks() or _global_hooks_ignored.get())
    )
