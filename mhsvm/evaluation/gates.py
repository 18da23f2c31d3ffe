"""The gates of Scan Route Attention on single images.

Shape letters: b batch, m heads, k routes, l cells, d channels of a head.
"""

import math
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import numpy as np
import torch
from torch import Tensor, nn

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import iterate_batches
from mhsvm.layers import ScanRouteAttention
from mhsvm.models import MHSVM
from mhsvm.ops import route_statistics
from mhsvm.ops.routes.gates import GATES
from mhsvm.store import BlockGates, GateMaps


def check_gate_maps(model: nn.Module, chosen: Sequence[str], ids: Sequence[str]) -> MHSVM:
    """Return the model as a network with gates, after a check that the chosen images are among those of a test.

    Raises:
        ValueError: It has no scan heads, its blocks have branches, or an image is not among `ids`.
    """
    if not isinstance(model, MHSVM):
        raise ValueError(f"the checkpoint's network, {type(model).__name__}, has no scan heads: leave `gate_maps` out")
    if model.branches > 1:
        raise ValueError(
            f"gates are measured in blocks that take all channels, and this network has {model.branches} branches: "
            "leave `gate_maps` out"
        )
    unknown = sorted(set(chosen) - set(ids))
    if unknown:
        raise ValueError(
            f"`gate_maps` names images that are not among the test images: {', '.join(unknown[:5])}. "
            f"Name test images, such as {', '.join(ids[:3])}"
        )
    return model


def measure_gate_maps(
    model: MHSVM, dataset: Dataset, ids: Sequence[str], *, augment: Augment, gate: str, device: torch.device
) -> GateMaps:
    """Measure the gates of a network on some images of a data set.

    Args:
        model: A network as for `measure_gates`, on `device`.
        dataset: The data set with the images.
        ids: The images, none of them twice.
        augment: The normalization of the network's training.
        gate: The name of its gate.
        device: The device that computes.
    """
    rows = torch.tensor([dataset.ids.index(image_id) for image_id in ids])
    (batch,) = iterate_batches(dataset, rows, batch_size=len(rows), device=device)
    inputs, _ = augment(batch.images, batch.masks)
    return GateMaps(tuple(ids), model.patterns, gate, measure_gates(model, inputs))


@torch.inference_mode()
def measure_gates(model: nn.Module, inputs: Tensor) -> tuple[BlockGates, ...]:
    """Run a network with scan heads on images, one at a time, and keep the values of its gates.

    Args:
        model: In evaluation mode and outside of any CUDA graph: hooks observe the gates.
        inputs: Normalized images, (n, 3, H, W).
    Raises:
        ValueError: The network has no Scan Route Attention.
    """
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, ScanRouteAttention)}
    if not layers:
        raise ValueError(f"{type(model).__name__} has no gates over scan routes: only MHS-VM has them")
    observed: dict[str, list[tuple[np.ndarray, ...]]] = {name: [] for name in layers}
    size = inputs.shape[2], inputs.shape[3]

    def observe(name: str) -> Callable[[ScanRouteAttention, tuple[Tensor]], None]:
        def hook(layer: ScanRouteAttention, arguments: tuple[Tensor]) -> None:
            observed[name].append(tuple(part.cpu().numpy() for part in _measure(layer, *arguments, size)))

        return hook

    with ExitStack() as hooks:
        for name, layer in layers.items():
            hooks.enter_context(layer.register_forward_pre_hook(observe(name)))
        for image in inputs.split(1):
            model(image)
    # a block holds one attention layer: the block's name ends before ".mixer"
    return tuple(
        BlockGates(name.partition(".mixer")[0], *map(np.concatenate, zip(*of_images, strict=True)))
        for name, of_images in observed.items()
    )


def _measure(layer: ScanRouteAttention, y: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """(b, m, k, l, d) -> gate (b, m, h, w), closed fraction (b, m), weight of each route (b, m, k)."""
    gate = GATES[layer.gate]
    if gate.weigh is None:
        weight = torch.ones_like(y[:, :, 0])
    else:
        _, variation = route_statistics(y, backend=layer.backend)
        weight = gate.weigh(variation, gate.choose_threshold(layer.threshold), layer.power)  # (b, m, l, d)
    h, w = _map_size(size, y.shape[3])
    sizes = y.abs().double().sum(dim=(3, 4))
    return (
        weight.mean(dim=-1).unflatten(-1, (h, w)).float(),
        (weight == 0).double().mean(dim=(2, 3)),
        sizes / sizes.sum(dim=2, keepdim=True),
    )


def _map_size(size: tuple[int, int], num_cells: int) -> tuple[int, int]:
    """Height and width of a map with `num_cells` cells: a stage divides both by its stride."""
    stride = round(math.sqrt(size[0] * size[1] / num_cells))
    return size[0] // stride, size[1] // stride
