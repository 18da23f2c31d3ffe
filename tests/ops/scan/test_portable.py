import pytest
import torch

from mhsvm.ops import selective_scan
from mhsvm.ops.dispatch import is_exporting
from mhsvm.ops.scan import portable, reference

ALL = ("D", "z", "delta_bias")


@pytest.fixture
def check(outputs_and_gradients, relative_error):
    """Compare the output, the last state and every gradient with the reference in float64."""

    def compare(inputs, **options):
        expected = outputs_and_gradients(reference.selective_scan, inputs, **options)
        actual = outputs_and_gradients(portable.selective_scan, inputs, **options)
        for name, tensor in expected.items():
            assert relative_error(actual[name], tensor) < 1e-9, name

    return compare


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("groups", [1, 2])
# one block; blocks of 8, 9 and 16 steps; a length that is padded, also in blocks of blocks; three levels
@pytest.mark.parametrize("length", [2, 16, 64, 63, 32, 17, 127, 1000])
def test_equals_reference(sequence_inputs, check, length, groups):
    check(sequence_inputs(length=length, groups=groups), delta_softplus=True)


def test_one_step(sequence_inputs, relative_error):
    inputs = {name: x.detach() for name, x in sequence_inputs(length=1, optional=()).items()}
    actual = portable.selective_scan(**inputs, return_last_state=True)
    for found, exact in zip(actual, reference.selective_scan(**inputs, return_last_state=True), strict=True):
        assert relative_error(found, exact) < 1e-12


@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",), ALL])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_equals_reference_with_any_options(sequence_inputs, check, optional, delta_softplus):
    check(sequence_inputs(length=40, optional=optional), delta_softplus=delta_softplus)


@pytest.mark.parametrize("exponent", [-50.0, -1e-6])
def test_extreme_decays_over_4096_steps(sequence_inputs, relative_error, exponent):
    inputs = sequence_inputs(b=1, d=2, n=2, length=4096, groups=1, optional=(), dtype=torch.float32)
    with torch.no_grad():
        inputs["delta"].fill_(0.1)
        inputs["A"].fill_(exponent / 0.1)
        # With inputs of one sign, errors do not average out.
        for name in ("u", "B", "C"):
            inputs[name].abs_()
        expected = reference.selective_scan(**{name: x.double() for name, x in inputs.items()}, return_last_state=True)
        actual = portable.selective_scan(**inputs, return_last_state=True)
    for found, exact in zip(actual, expected, strict=True):
        assert relative_error(found, exact) < 3e-5


class Scan(torch.nn.Module):
    def __init__(self, backend="auto"):
        super().__init__()
        self.backend = backend

    def forward(self, u, delta, B, C):
        B, C = (x.unflatten(1, (2, 3)) for x in (B, C))
        return selective_scan(u, delta, -torch.ones(6, 3), B, C, delta_softplus=True, backend=self.backend)


def recorded(scan, tensors, **options):
    program = torch.export.export(scan, tensors, strict=False, **options)
    targets = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    return program.module(), {target for target in targets if target.startswith("mhsvm")}


def tensors_of(batch, length=40):
    generator = torch.Generator().manual_seed(batch)
    return tuple(torch.randn(batch, c, length, generator=generator) for c in (6, 6, 6, 6))


@pytest.mark.skipif(not hasattr(torch.compiler, "is_exporting"), reason="torch 2.6 does not say that it exports")
def test_torch_export_records_no_operator_of_the_package_unless_it_is_named():
    batch = torch.export.Dim("batch")
    program, own = recorded(Scan(), tensors_of(2), dynamic_shapes=({0: batch},) * 4)
    assert own == set()
    for size in (1, 2, 3, 8):
        torch.testing.assert_close(program(*tensors_of(size)), Scan("reference")(*tensors_of(size)))
    assert recorded(Scan("cpu"), tensors_of(2))[1] == {"mhsvm.cpu_scan.default"}


def test_torch_compile_is_no_export():
    def changed(x):
        return x + 1 if is_exporting() else x - 1

    assert torch.compile(changed, backend="eager", fullgraph=True)(torch.zeros(1)).item() == -1
    assert torch.export.export(Calls(changed), (torch.zeros(1),)).module()(torch.zeros(1)).item() == 1


class Calls(torch.nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, x):
        return self.function(x)


def test_the_environment_names_a_backend_in_torch_export_too(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "cpu")
    assert recorded(Scan(), tensors_of(2))[1] == {"mhsvm.cpu_scan.default"}
