"""The Triton scans against the reference in float64: on a GPU, or in Triton's interpreter (TRITON_INTERPRET=1)."""

import os

import pytest
import torch
from torch._subclasses import FakeTensorMode

from mhsvm.ops.routes.route_scan import route_scan_reference
from mhsvm.ops.scan import reference
from mhsvm.ops.scan.triton import plan
from mhsvm.ops.scan.triton.triton_scan import route_scan, selective_scan
from mhsvm.routes import scan_routes

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
ALL = ("D", "z", "delta_bias")

pytestmark = pytest.mark.interpreter


@pytest.fixture
def _short_chunks(monkeypatch):
    """The shortest chunks, since more programs are requested than possible."""
    for name in ("_FORWARD_PROGRAMS", "_BACKWARD_PROGRAMS"):
        monkeypatch.setattr(plan, name, 10**6)
    monkeypatch.setattr(plan, "_MIN_CHUNK_STEPS", 1)


@pytest.fixture
def check(sequence_inputs, outputs_and_gradients, relative_error, tolerance):
    def compare(*, dtype=torch.float32, change=lambda x: x, softplus=True, **sizes):
        inputs = {k: change(x.detach()).to(DEVICE) for k, x in sequence_inputs(dtype=dtype, **sizes).items()}
        exact = {k: x.double().requires_grad_() for k, x in inputs.items()}
        inputs = {k: x.requires_grad_() for k, x in inputs.items()}
        expected = outputs_and_gradients(reference.selective_scan, exact, delta_softplus=softplus)
        actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=softplus)
        for name, tensor in expected.items():
            assert relative_error(actual[name], tensor) < tolerance[dtype], name
        for name, x in inputs.items():
            assert actual[f"gradient of {name}"].dtype == x.dtype

    return compare


@pytest.mark.usefixtures("_poisoned_memory", "_short_chunks")
@pytest.mark.parametrize("length", [1, 63, 100, 130])
def test_chunks_and_carries(check, length):
    check(b=1, d=5, n=3, groups=1, length=length)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("length", [1, 15])
def test_one_chunk(check, length):
    check(b=2, d=8, n=3, groups=2, length=length)


# As small as the scan of UltraLight VM-UNet on its smallest map: backward it has chunks of 16 steps, or of 32.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(
    ("length", "max_chunks", "chunk", "dtype"),
    [(50, 32, 16, torch.float32), (62, 2, 32, torch.float32), (35, 32, 16, torch.bfloat16)],
)
def test_short_chunks_of_small_scans(check, monkeypatch, length, max_chunks, chunk, dtype):
    plans = []
    monkeypatch.setattr(plan, "_MAX_SHORT_CHUNKS", max_chunks)
    monkeypatch.setattr(
        "mhsvm.ops.scan.triton.triton_launch.plan_backward", lambda x: plans.append(plan.plan_backward(x)) or plans[-1]
    )
    check(b=1, d=8, n=16, groups=1, length=length, dtype=dtype)
    assert [x.chunk for x in plans] == [chunk]


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",)])
def test_options(check, optional):
    check(b=1, d=3, groups=1, length=18, optional=optional, softplus=False)


@pytest.mark.parametrize("n", [1, 16, 17, 64])
def test_numbers_of_states(check, n):
    check(b=1, d=2, n=n, groups=1, length=9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_groups_of_channels_in_several_programs(check, dtype):
    check(b=1, d=60, n=2, groups=2, length=10, dtype=dtype)


@pytest.mark.usefixtures("_short_chunks")
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bits(check, dtype):
    check(b=1, d=8, groups=2, length=20, dtype=dtype)


def test_non_contiguous_inputs(check):
    def scatter(x):
        return x.mT.contiguous().mT if x.dim() > 1 else x.repeat_interleave(2)[::2]

    check(b=2, d=4, groups=2, length=12, change=scatter)


@pytest.mark.usefixtures("_short_chunks")
def test_gradients_repeat_bit_for_bit(sequence_inputs, outputs_and_gradients):
    inputs = {
        k: x.detach().to(DEVICE).requires_grad_()
        for k, x in sequence_inputs(b=1, d=5, groups=1, length=20, dtype=torch.float32).items()
    }
    first, second = (outputs_and_gradients(selective_scan, inputs, delta_softplus=True) for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("exponent", [-50.0, -1e-6])
def test_extreme_decays(sequence_inputs, relative_error, exponent):
    inputs = {k: x.detach().abs() for k, x in sequence_inputs(b=1, d=2, n=2, length=40, groups=1, optional=()).items()}
    inputs["delta"].fill_(0.1)
    inputs["A"].fill_(exponent / 0.1)
    expected = reference.selective_scan(**inputs)
    actual = selective_scan(**{k: x.float().to(DEVICE) for k, x in inputs.items()})
    assert relative_error(actual.cpu(), expected) < 1e-5


@pytest.mark.usefixtures("_poisoned_memory", "_short_chunks")
@pytest.mark.parametrize(
    ("dtype", "dtype_of_weights", "bound"),
    [
        (torch.float32, torch.float32, 1e-6),
        # Projections of float32, also of 16-bit values: the numbers that a gate compares are not rounded.
        (torch.bfloat16, torch.float32, 1e-6),
        (torch.bfloat16, torch.bfloat16, 2e-2),
    ],
)
def test_routes(relative_error, tolerance, dtype, dtype_of_weights, bound):
    h, w, patterns = 2, 6, ("C", "S")
    b, m, k, d, n, r = 1, len(patterns), 4, 3, 2, 2
    orders, inverses = zip(*(scan_routes(pattern, h, w) for pattern in patterns), strict=True)
    routes = {"order": torch.stack(orders).to(DEVICE), "inverse": torch.stack(inverses).to(DEVICE)}
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(shape, generator=generator).to(DEVICE)

    inputs = {
        "u": normal(b, h * w, m, d).to(dtype),
        "x_proj": normal(m, k, r + 2 * n, d).to(dtype_of_weights),
        "delta_proj": normal(m, k, d, r).to(dtype_of_weights),
        "delta_bias": normal(m, k, d),
        "A": -normal(m, k, d, n).exp(),
        "D": normal(m, k, d),
    }
    exact = {name: x.double().requires_grad_() for name, x in inputs.items()}
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    expected = route_scan_reference(**exact, **routes, scan=reference.selective_scan)
    actual = route_scan(**leaves, **routes)
    assert actual.dtype == torch.float32
    assert relative_error(actual, expected) < bound
    grad_output = normal(*actual.shape)
    gradients = torch.autograd.grad(actual, tuple(leaves.values()), grad_output)
    references = torch.autograd.grad(expected, tuple(exact.values()), grad_output.double())
    for name, gradient, of_reference in zip(inputs, gradients, references, strict=True):
        assert relative_error(gradient, of_reference) < tolerance[dtype], name


def _memory_orders(tensors):
    # The stride of an axis with one element has no meaning.
    return [(x.dtype, [(n, s) for n, s in zip(x.shape, x.stride(), strict=True) if n > 1]) for x in tensors]


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(("d", "dtype"), [(3, torch.float32), (30, torch.bfloat16)])
def test_torch_compile_is_told_the_memory_order(m, d, dtype):
    """The shapes of the fake implementations, for one split of the channels and for several."""
    b, length, k, n = 2, 5, 2, 3
    order = torch.arange(length).expand(m, k, -1).contiguous()
    u, x = torch.randn(b, length, m, d), torch.randn(m, b, length, k, d + 2 * n).permute(1, 2, 0, 3, 4)
    bias, A, D = torch.randn(m, k, d), -torch.rand(m, k, d, n), torch.randn(m, k, d)
    B = torch.randn(b, length, m, n)
    sequence, A2 = torch.randn(b, length, m * d), -torch.rand(n, m * d).T
    u, x, B, sequence = (t.to(dtype) for t in (u, x, B, sequence))
    ops = torch.ops.mhsvm

    def run(u, x, bias, A, D, order, B, sequence, A2):
        y, saved = ops.triton_route_scan(u, x, bias, A, D, order, True)
        of_routes = ops.triton_route_scan_backward(y, saved, u, x, bias, A, D, order)
        options = (None, sequence, None, True)
        y2, last, saved2 = ops.triton_selective_scan(sequence, sequence, A2, B, B, *options, True)
        others = ops.triton_selective_scan_backward(y2, last, saved2, sequence, sequence, A2, B, B, *options)
        return [y, saved, *of_routes, y2, last, saved2, *others]

    inputs = [t.to(DEVICE) for t in (u, x, bias, A, D, order, B, sequence, A2)]
    with FakeTensorMode() as mode:
        announced = run(*(mode.from_tensor(t) for t in inputs))
    assert _memory_orders(run(*inputs)) == _memory_orders(announced)
