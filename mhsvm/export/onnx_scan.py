"""The selective scan as nodes of ONNX: k blocks of r steps of each sequence, all blocks of all sequences at once.

First every block runs from zero to its end; then the states before the blocks follow from each other; then every block
runs again, from its own. A step multiplies and adds states, and no factor is above 1, so that nothing can overflow.

Shape letters: N images, p branches, k blocks, m = N * k * p, r steps, d channels, n states.
"""

from dataclasses import dataclass

from mhsvm.export.onnx_graph import Graph

# Nodes that each step and each block of a sequence takes.
_NODES_OF_STEP, _NODES_OF_BLOCK = 6, 4


@dataclass(frozen=True)
class Blocks:
    """How sequences are arranged: (r, channels, m), with the steps of a block first.

    Attributes:
        length: Steps r of a block.
        number: Blocks k of a sequence.
        branches: Sequences p of an image.
    """

    length: int
    number: int
    branches: int


def choose_blocks(num_cells: int, *, branches: int, least: int) -> Blocks:
    """The blocks of sequences with the fewest nodes; they have `least` steps or more, or there is only one."""
    lengths = [r for r in range(1, num_cells + 1) if num_cells % r == 0 and (r >= least or r == num_cells)]
    length = min(lengths, key=lambda r: _NODES_OF_STEP * r + _NODES_OF_BLOCK * (num_cells // r))
    return Blocks(length, num_cells // length, branches)


def selective_scan(graph: Graph, u: str, delta: str, A: str, B: str, C: str, *, blocks: Blocks, loops: bool) -> str:
    """s_t = exp(delta_t A) s_{t-1} + delta_t B_t u_t, y_t = C_t s_t.

    Args:
        u, delta: (r, d, m).
        A: (d, n, 1).
        B, C: (r, n, m).
        loops: Run the steps by the operator Scan; otherwise each step has nodes of its own.
    Returns:
        y, (r, d, m).
    """
    state, channel = graph.integers(2), graph.integers(1)
    delta_states = graph.add("Unsqueeze", delta, state)
    C = graph.add("Unsqueeze", C, channel)
    decay = graph.add("Exp", graph.add("Mul", delta_states, A))  # (r, d, n, m)
    u = graph.add("Unsqueeze", graph.add("Mul", delta, u), state)
    added = graph.add("Mul", u, graph.add("Unsqueeze", B, channel))
    of_blocks = ""
    if blocks.number > 1:
        total = graph.add("ReduceSum", delta_states, graph.integers(0))
        of_blocks = graph.add("Exp", graph.add("Mul", total, A))  # (1, d, n, m)
    run = _run_loops if loops else _run_nodes
    return run(graph, decay, added, C, of_blocks, blocks)


def _run_nodes(graph: Graph, decay: str, added: str, C: str, of_blocks: str, blocks: Blocks) -> str:
    several = blocks.number > 1
    # the first step of a lone block begins with zero
    decays = [graph.pick(decay, step) if step or several else "" for step in range(blocks.length)]
    addeds = [graph.pick(added, step) for step in range(blocks.length)]
    steps = list(zip(decays, addeds, strict=True))
    state = ""
    if several:
        for step in steps:
            state = _step(graph, state, *step)
        state = _starts(graph, state, of_blocks, blocks)
    states = []
    for step in steps:
        state = _step(graph, state, *step)
        states.append(state)
    products = graph.add("Mul", graph.concat(states, axis=0), C)
    return graph.add("ReduceSum", products, graph.integers(2), keepdims=0)


def _starts(graph: Graph, ends: str, of_blocks: str, blocks: Blocks) -> str:
    """The state before each block, (1, d, n, m), from the states that each alone ends with."""
    k, p = blocks.number, blocks.branches
    shape = graph.add("Shape", ends)
    ends, of_blocks = (graph.reshape(x, 0, 0, 0, -1, k, p) for x in (ends, of_blocks))
    state, states = graph.pick(ends, 0, axis=4), []
    for block in range(1, k):
        states.append(state)
        if block < k - 1:
            state = _step(graph, state, graph.pick(of_blocks, block, axis=4), graph.pick(ends, block, axis=4))
    starts = graph.pad_start(graph.concat(states, axis=4), 1, axis=4, num_axes=6)
    return graph.add("Reshape", starts, shape)


def _step(graph: Graph, state: str, decay: str, added: str) -> str:
    return graph.add("Add", graph.add("Mul", decay, state), added) if state else added


def _run_loops(graph: Graph, decay: str, added: str, C: str, of_blocks: str, blocks: Blocks) -> str:
    state = _zeros(graph, added)
    if blocks.number > 1:
        body = graph.body(3)
        body.outputs = (_step(body, *body.inputs),)
        ends = graph.add("Scan", state, decay, added, body=body, num_scan_inputs=2)
        state = _starts_by_loop(graph, ends, of_blocks, blocks)
    body = graph.body(4)
    *step, C_step = body.inputs
    after = _step(body, *step)
    body.outputs = (after, body.add("ReduceSum", body.add("Mul", after, C_step), body.integers(1), keepdims=0))
    _, y = graph.add_several("Scan", state, decay, added, C, num_outputs=2, body=body, num_scan_inputs=3)
    return y


def _starts_by_loop(graph: Graph, ends: str, of_blocks: str, blocks: Blocks) -> str:
    """The state before each block, (d, n, m), from the states (d, n, m) that each alone ends with."""
    k, p = blocks.number, blocks.branches
    shape = graph.add("Shape", ends)
    # a loop runs along the first axis
    ends = graph.transpose(graph.reshape(ends, 0, 0, -1, k, p), 3, 0, 1, 2, 4)
    of_blocks = graph.add("Squeeze", of_blocks, graph.integers(0))
    of_blocks = graph.transpose(graph.reshape(of_blocks, 0, 0, -1, k, p), 3, 0, 1, 2, 4)
    body = graph.body(3)
    state, decay, added = body.inputs
    body.outputs = (_step(body, state, decay, added), body.add("Identity", state))
    _, starts = graph.add_several(
        "Scan", _zeros(graph, ends), of_blocks, ends, num_outputs=2, body=body, num_scan_inputs=2
    )
    return graph.add("Reshape", graph.transpose(starts, 1, 2, 3, 0, 4), shape)


def _zeros(graph: Graph, x: str) -> str:
    """Zeros in the shape of a row of the first axis."""
    return graph.add("ConstantOfShape", graph.add("Shape", x, start=1))
