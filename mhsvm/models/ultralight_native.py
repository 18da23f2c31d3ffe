"""Inference of UltraLight VM-UNet by the C engine: when it can take a call, and the packed weights that it keeps."""

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch._utils import _flatten_dense_tensors

from mhsvm.layers import GroupNormGELU, PVMLayer, SkipBridge
from mhsvm.layers.layer_norm import LayerNorm
from mhsvm.layers.linear import Linear
from mhsvm.layers.mamba import Mamba
from mhsvm.layers.plain import has_global_hooks
from mhsvm.models.ultralight_weights import UltraLight, pack_weights
from mhsvm.native.network import NativeNetwork
from mhsvm.ops.dispatch import Operation

_CLASSES = {
    *(nn.Conv1d, nn.Conv2d, nn.Identity, nn.Linear, nn.ModuleList),
    *(GroupNormGELU, LayerNorm, Linear, Mamba, PVMLayer, SkipBridge),
}
_EPS = 1e-5

# All weights of a network, and the same weights packed.
_kept: "WeakKeyDictionary[UltraLight, tuple[Tensor, NativeNetwork]]" = WeakKeyDictionary()


def unsupported_reason(image: Tensor, model: UltraLight) -> str | None:
    """Why the C engine cannot compute the logits of images, or None if it can."""
    if image.device.type != "cpu" or image.dtype != torch.float32 or torch.is_autocast_enabled("cpu"):
        return "the C engine computes float32 on the CPU, without autocast"
    if torch.is_grad_enabled():
        return "the C engine computes no gradients: call it under torch.inference_mode() or torch.no_grad()"
    if model.training:
        return "the C engine computes inference: call model.eval() first"
    if not all(type(p) is nn.Parameter and p.dtype == torch.float32 and p.is_cpu for p in _weights(model)):
        return "the C engine takes weights in float32 on the CPU"
    if has_global_hooks():
        return "the C engine computes whole networks, and there are hooks on all modules"
    return changed_reason(model)


def changed_reason(model: UltraLight) -> str | None:
    """The first layer that the C engine does not compute, in a sentence; None if it computes all of them."""
    changed = changed_layer(model)
    return changed and f"the C engine computes the published network, and a {changed} differs or has hooks"


def changed_layer(model: UltraLight) -> str | None:
    """The class of the first layer that is not that of the published network, or has hooks; None if all are.

    A foreign mixer is named with its PVM layer.
    """
    for module in _modules(model):
        if module is not model and not _is_known(module):
            foreign = isinstance(module, PVMLayer) and type(module.mixer) is not Mamba
            mixer = f" with the mixer {type(module.mixer).__name__}" if foreign else ""
            return f"{type(module).__name__}{mixer}"
    return None


def run(image: Tensor, model: UltraLight) -> Tensor:
    """Images (b, in_channels, H, W) -> logits (b, num_classes, H, W), by as many threads as torch uses."""
    images = image.permute(0, 2, 3, 1).contiguous().numpy()
    logits = _network(model)(images, num_threads=torch.get_num_threads())
    return torch.from_numpy(logits)


def _is_known(module: nn.Module) -> bool:
    """Whether a layer is one that the engine computes: its class is unchanged, and nothing from outside watches it."""
    return (
        type(module) in _CLASSES
        and getattr(module, "eps", _EPS) == _EPS
        and "forward" not in vars(module)
        and not (module._forward_hooks or module._forward_pre_hooks)
        and (type(module) is not PVMLayer or type(module.mixer) is Mamba)
    )


def _weights(model: UltraLight) -> Iterator[nn.Parameter]:
    return (p for module in _modules(model) for p in module._parameters.values() if p is not None)


def _modules(model: Any) -> list[Any]:
    """The network and all its layers, several times as fast as model.modules(), which looks for repetitions."""
    found = [model]
    for module in found:
        found += [child for child in module._modules.values() if child is not None]
    return found


def _network(model: UltraLight) -> NativeNetwork:
    """The network with the present weights; they are packed again where they have changed."""
    # in one call: torch.cat of views takes as long as a tenth of an image
    weights = _flatten_dense_tensors(tuple(_weights(model))).detach()
    kept = _kept.get(model)
    if kept is None or not torch.equal(kept[0], weights):
        kept = _kept[model] = weights, NativeNetwork(pack_weights(model), **network_arguments(model))
    return kept[1]


def network_arguments(model: UltraLight) -> dict:
    """The arguments of `NativeNetwork` for a network."""
    layer = next(layer for layer in model.modules() if isinstance(layer, PVMLayer))
    mixer: Any = layer.mixer
    widths = [norm.num_channels for norm in model.encoder_norms]
    return {
        "in_channels": model.in_channels,
        "num_classes": model.head.out_channels,
        "channels": (*widths, model.encoder[5].proj.out_features),
        "branches": layer.branches,
        "d_state": mixer.d_state,
        "d_conv": mixer.conv1d.kernel_size[0],
        "expand": len(mixer.D) // mixer.in_proj.in_features,
        "bridge": not isinstance(model.bridge, nn.Identity),
    }


def ultralight_vm_unet_reference(image: Tensor, model: UltraLight) -> Tensor:
    """The network layer by layer, each on the backend of the network."""
    return model.by_layers(image)


ULTRALIGHT_VM_UNET = Operation("ultralight_vm_unet", ultralight_vm_unet_reference)
ULTRALIGHT_VM_UNET.register("native", run, unsupported_reason=unsupported_reason, traceable=False)
