"""Layers that an operation may replace: those that nothing from outside has changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

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
        and (not _has_any_global_hook() or _global_hooks_ignored.get())
    )
