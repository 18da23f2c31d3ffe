"""A parallel Vision Mamba layer as nodes of ONNX.

Shape letters: N images, l cells of a map, c o channels, p branches, v = c / p, d channels of the mixer, n states;
sequences are (r, channels, m) as in `onnx_scan`.
"""

from typing import Any

import numpy as np
from torch import Tensor

from mhsvm.export.onnx_graph import Graph
from mhsvm.export.onnx_scan import Blocks, choose_blocks, selective_scan
from mhsvm.layers.mamba import Mamba
from mhsvm.layers.pvm import PVMLayer

# Beyond it, log(1 + exp(x)) is x, and exp(x) does not overflow up to it.
_LARGE = 80.0


def add_pvm(graph: Graph, x: str, layer: PVMLayer, *, num_cells: int, loops: bool) -> str:
    """Map (N, c, l) -> (N, l, o)."""
    mixer, c = layer.mixer, layer.in_channels
    assert isinstance(mixer, Mamba)
    blocks = choose_blocks(num_cells, branches=layer.branches, least=mixer.conv1d.kernel_size[0] - 1)
    rows = _layer_norm(graph, graph.transpose(x, 0, 2, 1), layer.norm)  # (N, l, c)
    mixed = _mix(graph, _to_blocks(graph, rows, c, blocks), mixer, blocks, loops=loops)
    kept = graph.add("Mul", rows, graph.weight(array(layer.skip_scale)))
    joined = graph.add("Add", _to_rows(graph, mixed, c, num_cells, blocks), kept)
    return _linear(graph, _layer_norm(graph, joined, layer.norm), layer.proj)


def _linear(graph: Graph, x: str, layer: Any) -> str:
    product = graph.add("MatMul", x, graph.weight(array(layer.weight).T))
    return graph.add("Add", product, graph.weight(array(layer.bias)))


def _to_blocks(graph: Graph, rows: str, c: int, blocks: Blocks) -> str:
    """Rows (N, l, c) -> (r, v, m); each transposition moves one axis only, which runtimes do fast."""
    steps = graph.transpose(graph.reshape(rows, -1, blocks.length, c), 1, 0, 2)  # (r, N k, c)
    return graph.transpose(graph.reshape(steps, blocks.length, -1, c // blocks.branches), 0, 2, 1)


def _to_rows(graph: Graph, x: str, c: int, num_cells: int, blocks: Blocks) -> str:
    """The reverse of `_to_blocks`."""
    steps = graph.reshape(graph.transpose(x, 0, 2, 1), blocks.length, -1, c)
    return graph.reshape(graph.transpose(steps, 1, 0, 2), -1, num_cells, c)


def _mix(graph: Graph, x: str, mixer: Mamba, blocks: Blocks, *, loops: bool) -> str:
    """The mixer on sequences (r, v, m)."""
    d, n, rank = len(mixer.D), mixer.d_state, mixer.dt_rank
    u, z = graph.split(_convolve(graph, x, mixer, blocks), d, d, axis=1)
    projected = graph.add("MatMul", graph.weight(array(mixer.x_proj.weight)), u)
    low_rank, B, C = graph.split(projected, rank, n, n, axis=1)
    delta = graph.add("MatMul", graph.weight(array(mixer.dt_proj.weight)), low_rank)
    delta = _softplus(graph, graph.add("Add", delta, graph.weight(_column(mixer.dt_proj.bias))))
    A = graph.add("Neg", graph.add("Exp", graph.weight(array(mixer.A_log)[..., None])))
    y = selective_scan(graph, u, delta, A, B, C, blocks=blocks, loops=loops)
    y = graph.add("Add", y, graph.add("Mul", u, graph.weight(_column(mixer.D))))
    return graph.add("MatMul", graph.weight(array(mixer.out_proj.weight)), graph.add("Mul", y, z))


def _convolve(graph: Graph, x: str, mixer: Mamba, blocks: Blocks) -> str:
    """SiLU of the convolved input, and of the gate: (r, v, m) -> (r, 2d, m).

    The input's projection and its causal convolution are one product with the cells that the convolution reads. Its
    weights are computed from those of the network, which are fewer; a runtime does that once.
    """
    d, taps = len(mixer.D), mixer.conv1d.kernel_size[0]
    v = mixer.in_proj.in_features
    inward, gate = np.split(array(mixer.in_proj.weight), 2)
    kernel = array(mixer.conv1d.weight)[:, 0, :, None]  # (d, taps, 1)
    folded = graph.reshape(graph.add("Mul", graph.weight(kernel), graph.weight(inward[:, None])), d, taps * v)
    # the gate reads the last cell only
    gated = graph.pad_start(graph.weight(gate), (taps - 1) * v, axis=1, num_axes=2)
    bias = graph.add("Pad", graph.weight(_column(mixer.conv1d.bias)), graph.integers(0, 0, d, 0))
    weight = graph.add("Concat", folded, gated, axis=0)
    product = graph.add("MatMul", weight, _with_cells_before(graph, x, taps - 1, v, blocks))
    return silu(graph, graph.add("Add", product, bias))


def _with_cells_before(graph: Graph, x: str, number: int, v: int, blocks: Blocks) -> str:
    """Each cell after those before it in its sequence, or zeros: (r, v, m) -> (r, (number + 1) v, m)."""
    if number == 0:
        return x
    r, k = blocks.length, blocks.number
    if k == 1:
        longer = graph.pad_start(x, number, axis=0, num_axes=3)
    else:
        last = graph.reshape(graph.rows(x, r - number, r), number, v, -1, k, blocks.branches)
        before = graph.rows(graph.pad_start(last, 1, axis=3, num_axes=5), 0, k, axis=3)
        longer = graph.add("Concat", graph.reshape(before, number, v, -1), x, axis=0)
    shifted = [graph.rows(longer, start, start + r) for start in range(number)]
    return graph.concat([*shifted, x], axis=1)


def _softplus(graph: Graph, x: str) -> str:
    """log(1 + exp(x)). ONNX Runtime's own operator takes several times as long.

    With y = exp(x), the sum w = 1 + y loses digits if y is small; (y - (w - 1)) / w adds them to log(w).
    """
    one = graph.constant(1.0)
    y = graph.add("Exp", graph.add("Min", x, graph.constant(_LARGE)))
    w = graph.add("Add", y, one)
    lost = graph.add("Div", graph.add("Sub", y, graph.add("Sub", w, one)), w)
    return graph.add("Max", graph.add("Add", graph.add("Log", w), lost), x)


def _layer_norm(graph: Graph, x: str, norm: Any) -> str:
    weights = (graph.weight(array(norm.weight)), graph.weight(array(norm.bias)))
    return graph.add("LayerNormalization", x, *weights, epsilon=float(norm.eps))


def silu(graph: Graph, x: str) -> str:
    """x * sigmoid(x)."""
    return graph.add("Mul", x, graph.add("Sigmoid", x))


def array(x: Tensor | None) -> np.ndarray:
    """The numbers of a parameter, float64."""
    assert x is not None
    return x.detach().cpu().double().numpy()


def _column(x: Tensor | None) -> np.ndarray:
    return array(x)[:, None]
