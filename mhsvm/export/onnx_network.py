"""UltraLight VM-UNet as a graph of ONNX, from images of 8 bits to probabilities.

Shape letters: N images, h w size of a map, c channels.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from torch import nn

from mhsvm.data.augment import NORMALIZATIONS
from mhsvm.export.onnx_graph import FLOAT, Graph
from mhsvm.export.onnx_pvm import add_pvm, array
from mhsvm.layers import PVMLayer, SkipBridge
from mhsvm.models import UltraLightVMUNet
from mhsvm.ops.fused.prepare_batch import ChannelStatistics, minmax
from mhsvm.ops.fused.skip_bridge_launch import DILATION, TAPS

# Names of the graph's input, uint8 (N, h, w, 3), and of its output, float32 (N, k, h, w).
IMAGE, PROBABILITY = "image", "probability"

_MARGIN = TAPS // 2 * DILATION


class _Map(NamedTuple):
    """A value (N, c, h, w)."""

    name: str
    c: int
    h: int
    w: int


def can_normalize(normalization: str) -> bool:
    """Whether a graph can compute a normalization."""
    found = NORMALIZATIONS[normalization]
    return found is minmax or isinstance(found, ChannelStatistics)


def network_graph(
    model: UltraLightVMUNet, *, size: tuple[int, int], normalization: str, half: bool, loops: bool
) -> Graph:
    """The graph of a network.

    Args:
        model: The network.
        size: (h, w) of the images.
        normalization: A name that `can_normalize` knows.
        half: Store weights in 16 bits.
        loops: Scan by the operator Scan; otherwise by nodes that every runtime has.
    """
    graph = Graph(half=half)

    def layer(x: _Map, module: Any) -> _Map:
        if isinstance(module, PVMLayer):
            return _pvm(graph, x, module, loops=loops)
        return _conv(graph, x, module, pads=(1, 1, 1, 1))

    x, skips = _Map(_normalized(graph, normalization), model.in_channels, *size), []
    for module, norm in zip(model.encoder[:5], model.encoder_norms, strict=True):
        x = _norm(graph, layer(x, module), norm)
        skips.append(x)
    x = layer(x, model.encoder[5])
    x = x._replace(name=_gelu(graph, x.name))
    if isinstance(model.bridge, SkipBridge):
        skips = _bridge(graph, skips, model.bridge)
    for module, norm, skip in zip(model.decoder, model.decoder_norms, reversed(skips), strict=True):
        x = _norm(graph, layer(x, module), norm)
        x = x._replace(name=graph.add("Add", x.name, skip.name))
    _head(graph, x, model.head)
    return graph


def _normalized(graph: Graph, normalization: str) -> str:
    """Images (N, h, w, 3) -> (N, 3, h, w), normalized in the order of operations of training."""
    x = graph.add("Cast", graph.transpose(IMAGE, 0, 3, 1, 2), to=FLOAT)
    largest, found = graph.constant(255.0), NORMALIZATIONS[normalization]
    if isinstance(found, ChannelStatistics):
        mean, std = (graph.constant(np.reshape(each, (-1, 1, 1))) for each in (found.mean, found.std))
        return graph.add("Div", graph.add("Sub", graph.add("Div", x, largest), mean), std)
    axes = graph.integers(1, 2, 3)
    low, high = graph.add("ReduceMin", x, axes), graph.add("ReduceMax", x, axes)
    height = graph.add("Max", graph.add("Sub", high, low), graph.constant(1.0))
    return graph.add("Mul", graph.add("Div", graph.add("Sub", x, low), height), largest)


def _conv(graph: Graph, x: _Map, layer: Any, **attributes: Any) -> _Map:
    weights = (graph.weight(array(layer.weight)), graph.weight(array(layer.bias)))
    return x._replace(name=graph.add("Conv", x.name, *weights, **attributes), c=layer.out_channels)


def _pvm(graph: Graph, x: _Map, layer: PVMLayer, *, loops: bool) -> _Map:
    cells = graph.reshape(x.name, 0, 0, -1)
    rows = add_pvm(graph, cells, layer, num_cells=x.h * x.w, loops=loops)
    name = graph.reshape(graph.transpose(rows, 0, 2, 1), 0, -1, x.h, x.w)
    return x._replace(name=name, c=layer.proj.out_features)


def _norm(graph: Graph, x: _Map, norm: Any) -> _Map:
    """GELU(resize(GroupNorm(x)))."""
    x = _RESIZES[norm.resize](graph, x._replace(name=_group_norm(graph, x, norm)))
    return x._replace(name=_gelu(graph, x.name))


def _group_norm(graph: Graph, x: _Map, norm: Any) -> str:
    """GroupNorm with the digits of float32 also where a map is constant but for a few cells.

    Operators for norms lose them. They add all cells to one sum, beside which single ones become too small; and the
    rounded mean of equal numbers leaves a rest, which is divided by sqrt(eps). So sums have two stages, and the mean is
    subtracted twice.
    """
    groups = norm.num_groups
    cells = graph.reshape(x.name, 0, groups, -1, x.w)
    cells = graph.add("Sub", cells, _mean(graph, cells))
    rest = _mean(graph, cells)
    squares = _mean(graph, graph.add("Mul", cells, cells))
    variance = graph.add("Sub", squares, graph.add("Mul", rest, rest))
    deviation = graph.add("Sqrt", graph.add("Add", variance, graph.constant(norm.eps)))
    weight, bias = (graph.weight(array(each).reshape(groups, -1, 1)) for each in (norm.weight, norm.bias))
    scale = graph.add("Div", weight, deviation)  # (N, groups, c / groups, 1)
    shift = graph.add("Sub", bias, graph.add("Mul", rest, scale))
    scaled = graph.add("Mul", graph.reshape(cells, 0, groups, x.c // groups, -1), scale)
    return graph.reshape(graph.add("Add", scaled, shift), 0, x.c, x.h, x.w)


def _mean(graph: Graph, x: str) -> str:
    """Mean of the last two of four axes, which keep the length 1; in two stages, so that no sum is long."""
    return graph.add("ReduceMean", graph.add("ReduceMean", x, graph.integers(3)), graph.integers(2))


def _halved(graph: Graph, x: _Map) -> _Map:
    name = graph.add("MaxPool", x.name, kernel_shape=(2, 2), strides=(2, 2))
    return _Map(name, x.c, x.h // 2, x.w // 2)


def _doubled(graph: Graph, x: _Map) -> _Map:
    """Bilinear with corners on corners, by two products: operators that resize round the places of cells."""
    columns = graph.add("MatMul", x.name, graph.transpose(_doubling(graph, x.w), 1, 0))
    return _Map(graph.add("MatMul", _doubling(graph, x.h), columns), x.c, 2 * x.h, 2 * x.w)


def _doubling(graph: Graph, length: int) -> str:
    """The matrix (2 length, length) that doubles an axis; runtimes compute it once.

    Cell i of the result is at i (length - 1) / (2 length - 1) of the map. The distances to its cells are whole numbers
    before they are divided.
    """
    if length == 1:
        return graph.constant(np.ones((2, 1)))
    last = 2 * length - 1
    places = graph.range(0, 2 * length * (length - 1), length - 1)
    cells = graph.range(0, length * last, last)
    distance = graph.add("Abs", graph.add("Sub", graph.add("Unsqueeze", places, graph.integers(1)), cells))
    fraction = graph.add("Div", graph.add("Cast", distance, to=FLOAT), graph.constant(float(last)))
    return graph.add("Max", graph.add("Sub", graph.constant(1.0), fraction), graph.constant(0.0))


_RESIZES: dict[str, Callable[[Graph, _Map], _Map]] = {
    "keep": lambda graph, x: x,
    "halve": _halved,
    "double": _doubled,
}


def _gelu(graph: Graph, x: str) -> str:
    """x / 2 * (1 + erf(x / sqrt(2))): runtimes recognize it, and the operator Gelu is newer than some."""
    erf = graph.add("Erf", graph.add("Mul", x, graph.constant(2**-0.5)))
    return graph.add("Mul", graph.add("Mul", x, graph.add("Add", erf, graph.constant(1.0))), graph.constant(0.5))


def _bridge(graph: Graph, skips: Sequence[_Map], bridge: SkipBridge) -> list[_Map]:
    """See `mhsvm.ops.fused.skip_bridge`."""
    attended = [graph.add("Mul", _attention(graph, x.name, bridge), x.name) for x in skips]
    kept = [graph.add("Add", a, x.name) for a, x in zip(attended, skips, strict=True)]
    averages = [_mean(graph, x) for x in kept]
    mixed = graph.reshape(graph.concat(averages, axis=1), 0, 1, -1)
    mixed = graph.reshape(graph.add("Conv", mixed, graph.weight(array(bridge.mix.weight)), pads=(1, 1)), 0, -1)
    layers: list[Any] = list(bridge.gates)
    # the gates of all maps are one linear layer, also where they are stored as convolutions
    weight = np.concatenate([array(gate.weight).reshape(len(gate.bias), -1) for gate in layers])
    bias = np.concatenate([array(gate.bias) for gate in layers])
    gates = graph.add("Sigmoid", graph.add("Gemm", mixed, graph.weight(weight), graph.weight(bias), transB=1))
    parts = graph.split(graph.reshape(gates, 0, -1, 1, 1), *(x.c for x in skips), axis=1)
    return [
        x._replace(name=graph.add("Add", graph.add("Mul", gate, keep), a))
        for x, gate, keep, a in zip(skips, parts, kept, attended, strict=True)
    ]


def _attention(graph: Graph, x: str, bridge: SkipBridge) -> str:
    """The bridge's attention over space. Two convolutions and a sum are faster than one that has a single output."""
    axis = graph.integers(1)
    statistics = graph.concat([graph.add("ReduceMean", x, axis), graph.add("ReduceMax", x, axis)], axis=1)
    weight = graph.weight(np.swapaxes(array(bridge.spatial.weight), 0, 1))  # (2, 1, 7, 7)
    parts = graph.add("Conv", statistics, weight, group=2, dilations=(DILATION,) * 2, pads=(_MARGIN,) * 4)
    total = graph.add("Add", graph.add("ReduceSum", parts, axis), graph.weight(array(bridge.spatial.bias)))
    return graph.add("Sigmoid", total)


def _head(graph: Graph, x: _Map, head: nn.Conv2d) -> None:
    # as a product: a convolution of few outputs would be computed, and resized, for 8 or 16
    weight, bias = graph.weight(array(head.weight).reshape(-1, x.c)), graph.weight(array(head.bias)[:, None])
    y = graph.add("Add", graph.add("MatMul", weight, graph.reshape(x.name, 0, 0, -1)), bias)
    y = graph.reshape(y, 0, -1, x.h, x.w)
    y = _doubled(graph, x._replace(name=y, c=head.out_channels)).name
    if head.out_channels == 1:
        graph.add("Sigmoid", y)
    else:
        graph.add("Softmax", y, axis=1)
    graph.name_last(PROBABILITY)
