import pytest
import torch

from mhsvm.ops import selective_scan
from mhsvm.ops.dispatch import Implementation
from mhsvm.ops.scan import reference
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN, sequence_scan


@pytest.fixture
def arguments():
    b, d, n, g, length = 2, 6, 4, 3, 5
    return {
        "u": torch.ones(b, d, length),
        "delta": torch.ones(b, d, length),
        "A": -torch.ones(d, n),
        "B": torch.ones(b, g, n, length),
        "C": torch.ones(b, g, n, length),
    }


def test_published_cases(shared, backend, relative_error):
    cases = torch.load(shared / "fixtures" / "selective_scan.pt", weights_only=True)
    assert cases
    for case in cases:
        inputs = {name: x.requires_grad_() for name, x in case["inputs"].items()}
        y, state = selective_scan(
            **inputs, delta_softplus=case["delta_softplus"], return_last_state=True, backend=backend
        )
        assert relative_error(y, case["output"]) < 1e-4
        assert relative_error(state, case["last_state"]) < 1e-4
        gradients = torch.autograd.grad(y, tuple(inputs.values()), case["grad_seed"])
        for (name, _), gradient in zip(inputs.items(), gradients, strict=True):
            assert relative_error(gradient, case["grads"][name]) < 2e-3, name


def test_every_gradient(scan_inputs, outputs_and_gradients, relative_error, tolerance, backend, dtype):
    inputs = scan_inputs(length=63, dtype=dtype)
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    expected = outputs_and_gradients(selective_scan, exact, delta_softplus=True, backend="reference")
    actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend=backend)
    for name, tensor in expected.items():
        assert relative_error(actual[name], tensor) < tolerance[dtype], name


def test_time_before_channels_gives_the_same(scan_inputs, sequence_inputs, outputs_and_gradients, backend, dtype):
    """The public order of axes, and the internal one."""
    expected = outputs_and_gradients(selective_scan, scan_inputs(dtype=dtype), backend=backend)
    inputs = sequence_inputs(dtype=dtype)
    y, state = sequence_scan(**inputs, return_last_state=True, backend=backend)
    torch.testing.assert_close(y.mT, expected["y"])
    torch.testing.assert_close(state, expected["state"])
    assert y.shape == inputs["u"].shape


def test_backends_take_time_before_channels(scan_inputs, monkeypatch):
    received = {}

    def scan(u, delta, A, B, C, *others):
        received.update(u=u, delta=delta, B=B, C=C)
        return reference.selective_scan(u, delta, A, B, C, *others)

    monkeypatch.setattr(SELECTIVE_SCAN, "reference", Implementation("reference", scan))
    inputs = scan_inputs()
    selective_scan(**inputs, backend="reference")
    for name, x in received.items():
        # a view: nothing is copied
        assert x.data_ptr() == inputs[name].data_ptr()
        assert torch.equal(x, inputs[name].movedim(-1, 1))


def test_one_group_needs_no_group_dimension(scan_inputs, backend):
    inputs = scan_inputs(groups=1, dtype=torch.float32)
    squeezed = inputs | {"B": inputs["B"].squeeze(1), "C": inputs["C"].squeeze(1)}
    torch.testing.assert_close(
        selective_scan(**squeezed, backend=backend), selective_scan(**inputs, backend=backend), rtol=0, atol=0
    )


def test_types_may_be_mixed(scan_inputs, relative_error, backend):
    inputs = scan_inputs(dtype=torch.float32)
    mixed = inputs | {"u": inputs["u"].bfloat16(), "B": inputs["B"].half(), "delta": inputs["delta"].double()}
    y = selective_scan(**mixed, backend=backend)
    exact = selective_scan(**{name: x.double() for name, x in mixed.items()}, backend="reference")
    assert y.dtype == torch.bfloat16
    assert relative_error(y, exact) < 2**-8


def test_autocast_does_not_reach_inside(scan_inputs, outputs_and_gradients, backend):
    inputs = scan_inputs(dtype=torch.float32)
    expected = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend=backend)
    with torch.autocast("cpu", torch.bfloat16):
        actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=True, backend=backend)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, rtol=0, atol=0, msg=name)


class Scan(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.A = torch.nn.Parameter(-torch.ones(4, 3))

    def forward(self, u, delta, B, C):
        return selective_scan(u, delta, self.A, B, C, delta_softplus=True)


@pytest.fixture
def scan_tensors():
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, 4, 70), (2, 4, 70), (2, 3, 70), (2, 3, 70))
    return tuple(torch.randn(shape, generator=generator) for shape in shapes)


def test_exports(scan_tensors):
    scan = Scan()
    exported = torch.export.export(scan, scan_tensors, strict=False).module()
    torch.testing.assert_close(exported(*scan_tensors), scan(*scan_tensors))


@pytest.mark.parametrize("channels_last", [False, True])
def test_compiles_into_one_graph(scan_tensors, relative_error, automatic_backend, channels_last):
    inputs = [x.clone().requires_grad_() for x in scan_tensors]

    def scan(u, delta, B, C):
        tensors = (x.mT.contiguous().mT if channels_last else x for x in (u, delta, B, C))
        u, delta, B, C = tensors
        return selective_scan(u, delta, -torch.ones(4, 3), B, C, delta_softplus=True, backend=automatic_backend)

    expected = scan(*inputs)
    actual = torch.compile(scan, backend="aot_eager", fullgraph=True)(*inputs)
    torch.testing.assert_close(actual, expected)
    grad_output = torch.randn(expected.shape, generator=torch.Generator().manual_seed(1))
    gradients = torch.autograd.grad(actual, inputs, grad_output)
    for gradient, of_eager in zip(gradients, torch.autograd.grad(expected, inputs, grad_output), strict=True):
        assert relative_error(gradient, of_eager) < 1e-6


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("u", torch.ones(2, 6), r"u must be \(b, d, l\) with at least one step, got \(2, 6\)"),
        ("u", torch.ones(2, 6, 0), r"u must be \(b, d, l\) with at least one step, got \(2, 6, 0\)"),
        ("delta", torch.ones(2, 1, 5), r"delta must be \(b, d, l\) = \(2, 6, 5\) .* got \(2, 1, 5\)"),
        ("A", -torch.ones(4), r"A must be \(d, n\) with u's d = 6 channels, got \(4,\)"),
        ("A", -torch.ones(5, 4), r"A must be \(d, n\) with u's d = 6 channels, got \(5, 4\)"),
        ("B", torch.ones(2, 4, 4, 5), r"B's groups must divide u's d = 6 channels, got 4 in \(2, 4, 4, 5\)"),
        ("B", torch.ones(2, 0, 4, 5), r"B's groups must divide u's d = 6 channels, got 0"),
        ("B", torch.ones(6, 4), r"B must be \(b, g, n, l\) or \(b, n, l\) = .* got \(6, 4\)"),
        ("B", torch.ones(6), r"B must be \(b, g, n, l\) or \(b, n, l\) = .* got \(6,\)"),
        ("B", torch.ones(2, 3, 7, 5), r"B must be .* = \(2, 3, 4, 5\) for this u and A, got \(2, 3, 7, 5\)"),
        ("C", torch.ones(2, 2, 4, 5), r"C must be .* like B = \(2, 3, 4, 5\) .* got \(2, 2, 4, 5\)"),
        ("C", torch.ones(2, 4, 5), r"C must be .* like B = \(2, 3, 4, 5\) .* got \(2, 1, 4, 5\)"),
        ("D", torch.ones(6, 1), r"D must be \(d\) = \(6,\) .* got \(6, 1\)"),
        ("z", torch.ones(2, 6, 4), r"z must be \(b, d, l\) = \(2, 6, 5\) .* got \(2, 6, 4\)"),
        ("delta_bias", torch.ones(5), r"delta_bias must be \(d\) = \(6,\) .* got \(5,\)"),
        ("A", -torch.ones(6, 4, dtype=torch.complex64), "A must be real, got torch.complex64"),
        ("B", torch.ones(2, 3, 4, 5, dtype=torch.complex64), "B must be real, got torch.complex64"),
        ("u", torch.ones(2, 6, 5, dtype=torch.int64), "u must be float16, .* got torch.int64: convert it first"),
        ("D", torch.ones(6, device="meta"), "D is on meta and u on cpu: move them to one device"),
    ],
)
def test_bad_input(arguments, name, value, message):
    with pytest.raises(ValueError, match=message):
        selective_scan(**arguments | {name: value})
