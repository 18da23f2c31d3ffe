"""Inference of UltraLight VM-UNet by the C engine: when it can take a call, and the packed weights that it keeps."""

from collections.abc import Iterator
from functools import lru_cache
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
from mhsvm.models.registry import MODELS
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
# The layers of a network, and the class of the first that differs in its arguments; None if none does.
_compared: "WeakKeyDictionary[UltraLight, tuple[list[nn.Module], str | None]]" = WeakKeyDictionary()


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
    layers = _modules(model)[1:]
    for layer in layers:
        if not _is_known(layer):
            foreign = isinstance(layer, PVMLayer) and type(layer.mixer) is not Mamba
            mixer = f" with the mixer {type(layer.mixer).__name__}" if foreign else ""
            return f"{type(layer).__name__}{mixer}"
    kept = _compared.get(model)
    if kept is None or kept[0] != layers:
        kept = _compared[model] = layers, _different_layer(model, layers)
    return kept[1]


def _different_layer(model: UltraLight, layers: list[nn.Module]) -> str | None:
    """The class of the first layer that is another one than the published network has in its place."""
    has_bridge = not isinstance(model.bridge, nn.Identity)
    places = [(type(each), type(other)) for each, other in zip(layers, _published(bridge=has_bridge), strict=False)]
    # the gates of the bridge are linear layers or convolutions
    gates = {nn.Linear, nn.Conv1d}
    for found, expected in places:
        if found is not expected and not {found, expected} <= gates:
            return found.__name__
    split_att = "conv" if has_bridge and isinstance(model.bridge.gates[0], nn.Conv1d) else "fc"
    try:
        published = _published(**network_arguments(model), split_att=split_att)
    except ValueError:
        # there is no such network: a layer has another width
        return type(layers[0]).__name__
    for layer, other in zip(layers, published, strict=False):
        if _arguments(layer) != _arguments(other):
            return type(layer).__name__
    return None if len(layers) == len(published) else type(layers[-1]).__name__


@lru_cache(maxsize=8)
def _published(**arguments: Any) -> tuple[nn.Module, ...]:
    """The layers of a published network."""
    # on the device "meta" a first network takes a third of a second
    with torch.random.fork_rng(devices=[]):
        return tuple(_modules(MODELS["ultralight_vm_unet"].create(**arguments))[1:])


def _arguments(layer: nn.Module) -> tuple:
    """All that a layer computes by, but the values of its weights."""
    shapes = {name: x if x is None else x.shape for name, x in layer._parameters.items()}
    return type(layer), shapes, "" if layer._modules else layer.extra_repr()


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
