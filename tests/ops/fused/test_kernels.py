"""Outputs and gradients of all fused operations' kernels, against their references in float64."""

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
from torch import Tensor

from mhsvm.ops.dispatch import Operation, all_operations, left_to_compiler
from mhsvm.ops.fused import (
    bce_dice,
    branches,
    causal_conv1d,
    conv2d_silu,
    group_norm,
    layer_norm,
    linear,
    prepare_batch,
    skip_bridge,
    skip_bridge_launch,
)

# An output and a function of some tensors by name; the implementations of operations are arguments.
Run = Callable[..., Tensor | tuple[Tensor, ...]]


def of_one(operation: Operation, **options) -> Callable[..., Callable[..., Run]]:
    """Run an operation on tensors by name."""

    def make(implementation: Callable[[Operation], Callable]) -> Run:
        return lambda tensors: implementation(operation)(**tensors, **options)

    return make


def split_mix_join(num_branches: int):
    """Run both norms around branches, with a mixer across the channels of a branch."""

    def make(implementation):
        def run(tensors):
            x, weight, bias, skip_scale, mixing = tensors.values()
            split = implementation(branches.SPLIT_NORM)(x, weight, bias, skip_scale, branches=num_branches)
            y = implementation(branches.JOIN_NORM)(torch.tanh(split.parts @ mixing), split)
            return split.parts, y

        return run

    return make


def bridge(implementation):
    """Run the bridge, whose maps and layers are lists."""

    def run(tensors):
        lists = {"skips": [], "gate_weights": [], "gate_biases": []}
        others = {}
        for name, x in tensors.items():
            kind = name.rstrip("0123456789")
            lists[kind].append(x) if kind in lists else others.__setitem__(name, x)
        return tuple(
            implementation(skip_bridge.SKIP_BRIDGE)(lists["skips"], *others.values(), *list(lists.values())[1:])
        )

    return run


@dataclass(frozen=True)
class Case:
    """An operation on tensors of some sizes.

    Attributes:
        name: Name of the test.
        make: Function from implementations to a function of the tensors.
        shapes: Shapes of the tensors by name.
        bound: Bound of the relative errors in float32.
        module: Module of the operation; `sizes` replaces its constants, so that small tensors have several tiles.
        last: Names of the maps that are channels-last.
        fixed: Names of the tensors that have no gradient.
        operations: Operations that are called.
    """

    name: str
    make: Callable
    shapes: dict[str, tuple[int, ...]]
    bound: float
    module: object
    sizes: dict[str, int]
    operations: tuple[Operation, ...]
    last: tuple[str, ...] = ()
    fixed: tuple[str, ...] = field(default=())


def norm_shapes(*shape, gate=False):
    return {"x": shape, "weight": shape[-1:], "bias": shape[-1:], **({"gate": shape} if gate else {})}


def branch_shapes(b, c, *spatial, p):
    return {"x": (b, c, *spatial), "weight": (c,), "bias": (c,), "skip_scale": (1,), "mixing": (c // p, c // p)}


def bridge_shapes(batch, *sizes):
    total = sum(c for c, _, _ in sizes)
    skips = {f"skips{i}": (batch, *size) for i, size in enumerate(sizes)}
    weights = {f"gate_weights{i}": (c, total) for i, (c, _, _) in enumerate(sizes)}
    biases = {f"gate_biases{i}": (c,) for i, (c, _, _) in enumerate(sizes)}
    shared = {"spatial_weight": (1, 2, 7, 7), "spatial_bias": (1,), "mix_weight": (1, 1, 3)}
    return skips | shared | weights | biases


def stage_shapes(b, c, h, w, *, scale=None):
    skip = {} if scale is None else {"skip": (b, c, int(h * scale), int(w * scale))}
    return {"x": (b, c, h, w), "weight": (c,), "bias": (c,)} | skip


def conv_shapes(b, c, h, w, f=3):
    return {"x": (b, c, h, w), "weight": (c, 1, f, f), "bias": (c,)}


def causal_shapes(b, d, length, f):
    return {"x": (b, d, length), "weight": (d, f), "bias": (d,)}


def cases():
    # One row, less than a tile, several tiles, several tiles a program; with and without padding of the channels.
    norm = {"module": layer_norm, "sizes": {"_MAX_PROGRAMS": 2}, "operations": (layer_norm.LAYER_NORM,)}
    for shape in ((1, 8), (2, 5, 24), (3, 70, 33), (2, 1536)):
        for gate in (False, True):
            shapes, name = norm_shapes(*shape, gate=gate), f"layer_norm-{shape}{'-gate' * gate}"
            yield Case(name, of_one(layer_norm.LAYER_NORM), shapes, 1e-5, **norm)
    # Maps of one tile and of many, of one cell, with odd sides; groups whose width is not a power of 2.
    stage = {"module": group_norm, "sizes": {"_TILE": 64, "_MAX_CHUNKS": 4}}
    stage["operations"] = (group_norm.GROUP_NORM_GELU,)
    scales = {"keep": 1, "halve": 0.5, "double": 2}
    for resize, scale in scales.items():
        for shape, groups, skip in (((1, 8, 6, 6), 4, True), ((1, 24, 2, 4), 4, False), ((2, 9, 4, 2), 3, True)):
            make = of_one(group_norm.GROUP_NORM_GELU, groups=groups, resize=resize)
            shapes = stage_shapes(*shape, scale=scale if skip else None)
            yield Case(f"group_norm-{resize}-{shape}", make, shapes, 2e-6, **stage)
    # One cell, less than a tile, many; branches and widths that are powers of 2 and that are not.
    norms = {"module": branches, "sizes": {"_TILE": 128, "_BACKWARD_TILE": 64, "_MAX_PROGRAMS": 3}}
    norms["operations"] = (branches.SPLIT_NORM,)
    for shape, p in (((2, 24, 3, 3), 4), ((1, 8, 1), 1), ((3, 15, 7), 3), ((2, 10, 3, 2, 2), 2)):
        for last in ((), ("x",)):
            name = f"branches-{shape}{'-last' * len(last)}"
            yield Case(name, split_mix_join(p), branch_shapes(*shape, p=p), 5e-6, last=last, **norms)
    # One channel, one cell, tiles and blocks of channels that are full or not, one and several tiles a program.
    silu = {"module": conv2d_silu, "sizes": {"_CELLS": 16, "_MAX_PROGRAMS": 6}}
    silu["operations"] = (conv2d_silu.CONV2D_SILU,)
    for shape in ((1, 1, 1, 1), (2, 1, 5, 3), (3, 3, 9, 7), (2, 33, 7, 11)):
        make = of_one(conv2d_silu.CONV2D_SILU)
        yield Case(f"conv2d_silu-{shape}", make, conv_shapes(*shape), 1e-6, last=("x",), **silu)
    # One step, fewer steps than taps, several tiles, several blocks of channels.
    causal = {"module": causal_conv1d, "sizes": {}, "operations": (causal_conv1d.CAUSAL_CONV1D,)}
    for shape in ((2, 12, 1, 4), (1, 5, 3, 8), (2, 16, 130, 4), (2, 70, 20, 2), (1, 8, 9, 1)):
        make = of_one(causal_conv1d.CAUSAL_CONV1D)
        yield Case(f"causal_conv1d-{shape}", make, causal_shapes(*shape), 2e-6, **causal)
    # Maps of one cell, of less than a tile and of more, odd sides and channels; more samples than are summed at once.
    sizes = {"_CELLS": 32, "_CHANNELS": 4, "_MAX_MIXED": 16, "_SUMS": 2}
    # A matrix product of a GPU takes no fewer than 16 samples.
    sizes["_SAMPLES"] = 16 if torch.cuda.is_available() else 2
    maps = {"module": skip_bridge_launch, "sizes": sizes, "operations": (skip_bridge.SKIP_BRIDGE,)}
    for batch, *skips in ((2, (5, 7, 6), (13, 1, 3)), (1, (1, 1, 1), (1, 2, 1)), (3, (2, 1, 2)), (1, (8, 8, 9))):
        yield Case(f"skip_bridge-{batch}-{skips}", bridge, bridge_shapes(batch, *skips), 1e-5, **maps)
    # One tile and a part, several tiles a chunk, one cell; 16 maps take the last sums twice.
    loss = {"module": bce_dice, "sizes": {"_TILE": 32, "_MAX_CHUNKS": 4, "_SUMS_TILE": 32}}
    loss |= {"operations": (bce_dice.BCE_DICE,), "fixed": ("targets",)}
    for shape in ((3, 1, 9, 7), (2, 1, 25, 13), (1, 1, 1, 1), (8, 2, 3, 3)):
        for weights in ((1.0, 1.0, 1.0), (0.3, 2.0, 1e-3)):
            options = dict(zip(("bce_weight", "dice_weight", "smooth"), weights, strict=True))
            shapes = {"logits": shape, "targets": shape}
            yield Case(f"bce_dice-{shape}-{weights}", of_one(bce_dice.BCE_DICE, **options), shapes, 1e-6, **loss)
    products = {"module": linear, "sizes": {"_MOST_NUMBERS": 3 * 120}, "operations": (linear.LINEAR,)}
    for rows in (64, 128, 63):
        shapes = {"input": (rows, 6), "weight": (20, 6), "bias": (20,)}
        yield Case(f"linear-{rows}", lambda get: lambda t: get(linear.LINEAR)(*t.values()), shapes, 1e-6, **products)


CASES = list(cases())
# Kept in float32 where activations have 16 bits.
PARAMETERS = ("weight", "bias", "skip_scale", "spatial", "mix_", "gate_", "targets")


def make_tensors(case: Case, dtype: torch.dtype, device: torch.device, *, scattered: bool = False) -> dict[str, Tensor]:
    """Make leaves, with means far from 0 and constant rows; with `scattered` they are not contiguous."""
    generator = torch.Generator().manual_seed(sum(map(sum, case.shapes.values())))
    tensors = {}
    for name, shape in case.shapes.items():
        x = torch.randn(shape, generator=generator, dtype=torch.float64)
        if name in ("x", "logits"):
            x = 2 * x + 5 * (case.module not in (bce_dice, conv2d_silu, causal_conv1d))
        if name == "x" and case.module is layer_norm:
            x.view(-1, shape[-1])[1::3] = 3.5
            x.view(-1, shape[-1])[-1] += 20
        if name == "spatial_weight":
            x *= 0.3
        if name == "targets":
            x = x.sigmoid()
        kind = dtype if not name.startswith(PARAMETERS) else torch.promote_types(dtype, torch.float32)
        x = x.to(device, kind)
        if name in case.last:
            x = x.movedim(1, -1).contiguous().movedim(-1, 1)
        elif scattered:
            x = torch.stack([x, x + 1], dim=-1)[..., 0] if x.ndim < 2 else x.mT.contiguous().mT
        tensors[name] = x.requires_grad_(name not in case.fixed)
    return tensors


def outputs_and_gradients(run: Run, tensors: dict[str, Tensor], *, scattered: bool = False) -> dict[str, Tensor]:
    """All outputs, and the gradients of all leaves from seeded gradients of the outputs."""
    outputs = run(tensors)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    generator = torch.Generator().manual_seed(0)
    grads = [torch.randn(y.shape, generator=generator, dtype=torch.float64).to(y) for y in outputs]
    if scattered:
        grads = [grad.mT.contiguous().mT if grad.ndim > 1 else grad for grad in grads]
    leaves = {name: x for name, x in tensors.items() if x.requires_grad}
    gradients = torch.autograd.grad(outputs, tuple(leaves.values()), grads)
    named = {f"output {i}": y for i, y in enumerate(outputs)}
    return named | {f"gradient of {name}": x for name, x in zip(leaves, gradients, strict=True)}


def kernels(operation: Operation) -> Callable:
    return operation.implementation("triton").run


def reference(operation: Operation) -> Callable:
    return operation.reference.run


def in_float64(case: Case, tensors: dict[str, Tensor], **options) -> dict[str, Tensor]:
    exact = {name: x.detach().double().requires_grad_(x.requires_grad) for name, x in tensors.items()}
    return outputs_and_gradients(case.make(reference), exact, **options)


@pytest.fixture(params=CASES, ids=lambda case: case.name)
def case(request, monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    for name, size in request.param.sizes.items():
        monkeypatch.setattr(request.param.module, name, size)
    return request.param


@pytest.fixture
def check(relative_error, tolerance):
    """Compare with the reference in float64.

    In float32 the bound of a tensor is that of its case, or twice the error of torch's float32 operations on the same
    device if that is larger: a sum of terms that cancel loses digits in any order, and kernels add in another order.
    """

    def compare(case, tensors, actual, **options):
        expected = in_float64(case, tensors, **options)
        dtype = next(iter(tensors.values())).dtype
        own = outputs_and_gradients(case.make(reference), tensors, **options) if dtype == torch.float32 else {}
        for name, tensor in actual.items():
            bound = tolerance[dtype]
            if name in own:
                assert tensor.dtype == own[name].dtype, name
                bound = max(case.bound, 2 * relative_error(own[name], expected[name]))
            elif name.startswith("gradient of "):
                assert tensor.dtype == tensors[name.removeprefix("gradient of ")].dtype
            assert relative_error(tensor, expected[name]) < bound, name

    return compare


@pytest.mark.interpreter
@pytest.mark.usefixtures("_poisoned_memory")
def test_outputs_and_gradients(case, check, kernel_device):
    tensors = make_tensors(case, torch.float32, kernel_device)
    check(case, tensors, outputs_and_gradients(case.make(kernels), tensors))


def numbers(case):
    return sum(torch.Size(shape).numel() for shape in case.shapes.values())


SMALL = {case.module: case for case in sorted(CASES, key=numbers, reverse=True)}
IN_16_BITS = (
    "layer_norm-(2, 5, 24)-gate",
    "group_norm-halve-(2, 9, 4, 2)",
    "branches-(2, 24, 3, 3)",
    "conv2d_silu-(2, 33, 7, 11)",
    "causal_conv1d-(2, 70, 20, 2)",
    "skip_bridge-3-[(2, 1, 2)]",
    "bce_dice-(3, 1, 9, 7)-(0.3, 2.0, 0.001)",
    "linear-64",
)


@pytest.mark.interpreter
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name in IN_16_BITS], ids=lambda case: case.name, indirect=True
)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_types_of_16_bits(case, check, kernel_device, dtype):
    tensors = make_tensors(case, dtype, kernel_device)
    if case.module in (linear, conv2d_silu):
        # torch's products require one type
        tensors = {name: x.detach().to(dtype).requires_grad_() for name, x in tensors.items()}
    check(case, tensors, outputs_and_gradients(case.make(kernels), tensors))


def test_all_are_tested_in_16_bits():
    assert {case.module for case in CASES if case.name in IN_16_BITS} == {case.module for case in CASES}


@pytest.mark.interpreter
@pytest.mark.parametrize("case", CASES[::2], ids=lambda case: case.name, indirect=True)
def test_any_layout(case, check, kernel_device):
    tensors = make_tensors(case, torch.float32, kernel_device, scattered=True)
    actual = outputs_and_gradients(case.make(kernels), tensors, scattered=True)
    check(case, tensors, actual, scattered=True)


@pytest.mark.interpreter
@pytest.mark.parametrize("case", SMALL.values(), ids=lambda case: case.name, indirect=True)
def test_bits_are_the_same_in_every_run(case, kernel_device):
    tensors = make_tensors(case, torch.float32, kernel_device)
    first, second = (outputs_and_gradients(case.make(kernels), tensors) for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.interpreter
@pytest.mark.parametrize(
    "case",
    [case for module, case in SMALL.items() if module not in (causal_conv1d, skip_bridge_launch, linear)],
    ids=lambda case: case.name,
    indirect=True,
)
def test_there_is_no_second_derivative(case, kernel_device):
    tensors = make_tensors(case, torch.float32, kernel_device)
    outputs = case.make(kernels)(tensors)
    y = outputs[0] if isinstance(outputs, tuple) else outputs
    (gradient,) = torch.autograd.grad(y.square().sum(), next(iter(tensors.values())), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()


def choices(case, tensors, backend="auto"):
    """Names of the backends that are chosen for the operations of a case."""
    found = []

    def choose(operation):
        def run(*args, **kwargs):
            chosen = operation.choose(backend, *args, **kwargs)
            found.append((operation, chosen.backend))
            return chosen.run(*args, **kwargs)

        return run

    case.make(choose)(tensors)
    return {backend for operation, backend in found if operation in case.operations}


@pytest.mark.interpreter
@pytest.mark.parametrize("case", SMALL.values(), ids=lambda case: case.name, indirect=True)
def test_kernels_are_chosen_where_they_run(case, kernel_device, monkeypatch):
    tensors = make_tensors(case, torch.float32, kernel_device)
    assert choices(case, tensors) == choices(case, tensors, "triton") == {"triton"}
    assert choices(case, tensors, "chunked") == choices(case, tensors, "reference") == {"reference"}
    with left_to_compiler():
        known = case.operations[0].implementation("triton").traceable
        assert choices(case, tensors) == {"triton" if known else "reference"}
    exact = {name: x.detach().double() for name, x in tensors.items()}
    assert choices(case, exact) == {"reference"}
    with pytest.raises(ValueError, match="'triton' cannot run .*: its kernels compute in float32"):
        choices(case, exact, "triton")
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert choices(case, tensors) == {"reference"}


def test_every_fused_operation_is_tested():
    tested = {operation for case in CASES for operation in case.operations} | {branches.JOIN_NORM}
    fused = {x for x in all_operations() if x.reference.run.__module__.startswith("mhsvm.ops.fused")}
    assert fused - tested == {prepare_batch.PREPARE_BATCH}
