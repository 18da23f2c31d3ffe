"""Layers that an operation may replace: those that nothing from outside has changed."""

from torch import nn
from torch.nn.modules.module import _has_any_global_hook

from mhsvm.layers.layer_norm import LayerNorm

_CLASSES = (nn.Linear, nn.Conv1d, nn.Conv2d, LayerNorm)


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
        and not _has_any_global_hook()
    )
