import pytest
import torch
from torch._subclasses import FakeTensorMode

from mhsvm.ops import route_attention
from mhsvm.ops.routes.gates import GATES, Gate
from mhsvm.ops.routes.route_attention import route_attention_reference

GATE_NAMES = ("relu", "sigmoid", "power", "exp", "none")
WITH_THRESHOLD = ("relu", "sigmoid", "exp")
ROUTES_2_4_6_8 = torch.tensor([2.0, 4.0, 6.0, 8.0]).reshape(1, 1, 4, 1, 1)
# deviation sqrt(20/3), mean above the minimum 3
VARIATION = (20 / 3) ** 0.5 / (3 + 1e-5)


def normal(*shape, dtype=torch.float32):
    generator = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)


def map_and_gradients(attend, tensors, **options):
    """The map z, and the gradients of all tensors from a seeded gradient of z that 16 bits represent exactly."""
    z = attend(**tensors, **options)
    seed = normal(*z.shape).bfloat16().to(z.dtype)
    gradients = torch.autograd.grad(z, tuple(tensors.values()), seed)
    return {"z": z} | {f"gradient of {name}": x for name, x in zip(tensors, gradients, strict=True)}


@pytest.fixture
def check(relative_error, tolerance):
    """Compare with the reference in float64: the map, and the gradients of y and of a learnable threshold."""

    def compare(backend, tensors, **options):
        exact = {name: x.detach().double().requires_grad_() for name, x in tensors.items()}
        tensors = {name: x.detach().requires_grad_() for name, x in tensors.items()}
        plain = {"gate": "relu", "power": 2.0, "threshold": 0.5, **options, "dtype": torch.float64}
        expected = map_and_gradients(route_attention_reference, exact, **{k: plain[k] for k in plain if k not in exact})
        actual = map_and_gradients(route_attention, tensors, **options, backend=backend)
        assert actual["z"].dtype == options.get("dtype", tensors["y"].dtype)
        for name, tensor in expected.items():
            assert relative_error(actual[name], tensor) < tolerance[actual[name].dtype], name

    return compare


@pytest.mark.parametrize(
    ("gate", "weight"),
    [
        ("relu", VARIATION - 0.5),
        ("sigmoid", 1 / (1 + torch.tensor(-VARIATION).exp().item())),
        ("power", VARIATION**2),
        ("exp", torch.tensor(VARIATION).exp().item()),
        ("none", 1.0),
    ],
)
def test_a_case_by_hand(backend, gate, weight):
    z = route_attention(ROUTES_2_4_6_8, gate=gate, backend=backend)
    assert z.shape == (1, 1, 1)
    assert z.item() == pytest.approx(20 * weight, rel=1e-5)


def test_heads_lie_side_by_side(backend):
    y = normal(2, 3, 4, 5, 6)
    z = route_attention(y, backend=backend)
    assert z.shape == (2, 5, 18)
    assert z.is_contiguous()
    alone = route_attention(y[1:, 2:, :, 4:, 3:4], backend=backend)
    torch.testing.assert_close(z[1, 4, 2 * 6 + 3], alone.squeeze())


@pytest.mark.parametrize("gate", GATE_NAMES)
def test_every_gate(check, backend, dtype, gate):
    check(backend, {"y": normal(2, 3, 4, 21, 6, dtype=dtype)}, gate=gate, threshold=0.3)


@pytest.mark.parametrize("gate", WITH_THRESHOLD)
def test_learnable_thresholds(check, backend, dtype, gate):
    tensors = {
        "y": normal(2, 3, 4, 21, 6, dtype=dtype),
        "threshold": torch.tensor([0.2, 0.5, -0.3], dtype=dtype).view(3, 1, 1),
    }
    check(backend, tensors, gate=gate)


@pytest.mark.parametrize("power", [1.0, 3.5])
def test_powers(check, backend, power):
    check(backend, {"y": normal(1, 1, 4, 21, 6)}, gate="power", power=power)


# One vector of the kernels, less, more, and more than one slice of work; channels in vectors of 1, 2, 4 and 8.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(("k", "cells", "d"), [(4, 1, 1), (2, 63, 12), (3, 100, 10), (4, 130, 24), (8, 3, 5)])
def test_sizes(check, backend, k, cells, d):
    # Far apart: the variation of two routes is almost constant, and the terms of its gradient would cancel.
    y = normal(2, 2, k, cells, d) + 5.0 * torch.arange(k).view(k, 1, 1)
    check(backend, {"y": y, "threshold": torch.tensor([0.2, 0.6]).view(2, 1, 1)})


def test_any_layout(check, backend):
    y = normal(2, 5, 3, 4, 6).permute(0, 2, 3, 1, 4)
    threshold = torch.tensor([0.2, 9.0, 0.3, 9.0, 0.4, 9.0])[::2].view(3, 1, 1)
    assert not y.is_contiguous()
    assert not threshold.is_contiguous()
    check(backend, {"y": y, "threshold": threshold})


def test_any_layout_of_the_gradient(relative_error, backend):
    y = normal(2, 3, 4, 5, 6).requires_grad_()
    seed = normal(2, 18, 5).mT
    (actual,) = torch.autograd.grad(route_attention(y, backend=backend), y, seed)
    (expected,) = torch.autograd.grad(route_attention(y, backend=backend), y, seed.contiguous())
    assert torch.equal(actual, expected)
    # as the gradient of a sum: one number, expanded
    (actual,) = torch.autograd.grad(route_attention(y, backend=backend).sum(), y)
    (expected,) = torch.autograd.grad(route_attention(y, backend=backend), y, torch.ones(2, 5, 18))
    assert torch.equal(actual, expected)


@pytest.mark.parametrize("gate", GATE_NAMES)
@pytest.mark.parametrize("dtype_of_map", [torch.bfloat16, torch.float16])
def test_only_the_map_is_rounded(check, backend, gate, dtype_of_map):
    y = normal(2, 2, 4, 21, 8)
    z = route_attention(y, gate=gate, dtype=dtype_of_map, backend=backend)
    # A unit in the last place of bfloat16: Triton's interpreter truncates, a GPU rounds.
    expected = route_attention(y, gate=gate, backend=backend)
    torch.testing.assert_close(z.float(), expected, rtol=2**-7, atol=2**-24)
    check(backend, {"y": y}, gate=gate, dtype=dtype_of_map, threshold=GATES[gate].default_threshold)


@pytest.mark.parametrize("dtype_of_map", [torch.float32, torch.bfloat16, torch.float16])
def test_variation_sees_small_differences_and_ignores_a_common_offset(backend, dtype_of_map):
    generator = torch.Generator().manual_seed(0)
    y = 1 + 1e-3 * torch.rand(2, 1, 4, 6, 3, generator=generator, dtype=torch.float64)
    z = route_attention(y.float(), gate="power", power=1.0, dtype=dtype_of_map, backend=backend)
    above = y - 1
    expected = above.std(2) / ((above - above.amin(2, keepdim=True)).mean(2) + 1e-5)
    variation = z.double() / y.sum(2).transpose(1, 2).flatten(2)
    torch.testing.assert_close(variation, expected.transpose(1, 2).flatten(2), rtol=1e-2, atol=0)


def test_bfloat16_closes_the_cells_that_float32_closes(backend):
    y = 1 + 1e-3 * torch.rand(2, 2, 4, 50, 8, generator=torch.Generator().manual_seed(0))
    exact, half = (
        route_attention(y, threshold=1.0, dtype=dtype, backend=backend) == 0 for dtype in (None, torch.bfloat16)
    )
    assert 0.3 < exact.float().mean() < 0.9
    assert torch.equal(half, exact)


@pytest.mark.parametrize("gate", GATE_NAMES)
def test_equal_routes_have_a_finite_gradient(backend, gate):
    y = torch.full((1, 2, 4, 3, 2), 1.5, requires_grad=True)
    route_attention(y, gate=gate, backend=backend).sum().backward()
    weight = {"relu": 0.0, "sigmoid": 0.5, "power": 0.0, "exp": 1.0, "none": 1.0}[gate]
    torch.testing.assert_close(y.grad, torch.full_like(y, weight))


def test_routes_that_share_the_minimum_share_its_gradient(check, backend):
    check(backend, {"y": torch.tensor([1.0, 1.0, 3.0, 4.0]).reshape(1, 1, 4, 1, 1).repeat(1, 1, 1, 2, 9)})


def test_what_is_no_number_stays_visible(backend):
    y = normal(1, 1, 4, 2, 3)
    y[0, 0, 1, 0, 2] = float("nan")
    y.requires_grad_()
    z = route_attention(y, backend=backend)
    assert z.isnan().nonzero().tolist() == [[0, 0, 2]]
    (gradient,) = torch.autograd.grad(z, y, torch.ones_like(z))
    assert gradient[0, 0, :, 0, 2].isnan().all()
    assert gradient.isnan().sum() == 4


def test_repeats_bit_for_bit(backend):
    tensors = {
        "y": normal(2, 2, 4, 70, 9).requires_grad_(),
        "threshold": torch.full((2, 1, 1), 0.5, requires_grad=True),
    }
    first, second = (map_and_gradients(route_attention, tensors, backend=backend) for _ in range(2))
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize("learnt", [True, False])
def test_compiles_into_one_graph(automatic_backend, learnt):
    tensors = {"y": normal(1, 2, 4, 5, 3).requires_grad_()}
    options = {"backend": automatic_backend, "dtype": torch.bfloat16}
    if learnt:
        tensors["threshold"] = torch.tensor([0.2, 0.6]).view(2, 1, 1).requires_grad_()
    compiled = torch.compile(route_attention, backend="aot_eager", fullgraph=True)
    expected = map_and_gradients(route_attention, tensors, **options)
    with torch.autocast("cpu", torch.bfloat16):
        actual = map_and_gradients(compiled, tensors, **options)
    for name, tensor in expected.items():
        torch.testing.assert_close(actual[name], tensor, msg=lambda text, name=name: f"{name}: {text}")


def test_torch_compile_is_told_the_memory_order(backend):
    """The shape and type of the fake implementation."""

    def run(y, threshold, seed):
        z = route_attention(y, threshold=threshold, dtype=torch.bfloat16, backend=backend)
        tensors = (z, *torch.autograd.grad(z, (y, threshold), seed))
        return [(x.dtype, x.shape, x.stride()) for x in tensors]

    y, threshold = normal(2, 6, 4, 3, 5).transpose(1, 3).requires_grad_(), torch.zeros(3, 1, 1, requires_grad=True)
    inputs = (y, threshold, normal(2, 15, 6).mT.bfloat16())
    with FakeTensorMode() as mode:
        announced = run(*(mode.from_tensor(x) for x in inputs))
    assert run(*inputs) == announced


# torch's own std warns of an empty one
@pytest.mark.filterwarnings("ignore:std")
def test_no_samples(backend):
    y, threshold = torch.ones(0, 2, 4, 5, 3, requires_grad=True), torch.ones(2, 1, 1, requires_grad=True)
    z = route_attention(y, threshold=threshold, gate="exp", backend=backend)
    assert z.shape == (0, 5, 6)
    of_y, of_threshold = torch.autograd.grad(z.sum(), (y, threshold))
    assert of_y.shape == y.shape
    assert torch.equal(of_threshold, torch.zeros(2, 1, 1))


def test_a_gate_without_kernels_is_composed(registered, check, backend, dtype):
    registered(GATES, "square", Gate(lambda cv, threshold, power: (cv - threshold).square(), 0.1))
    check(backend, {"y": normal(1, 2, 4, 5, 3, dtype=dtype)}, gate="square", threshold=0.1)


def test_gates_without_threshold_pass_over_it(backend):
    threshold = torch.full((2, 1, 1), 0.7)
    y = normal(1, 2, 4, 5, 3)
    for gate in ("power", "none"):
        expected = route_attention(y, gate=gate, backend=backend)
        assert torch.equal(route_attention(y, gate=gate, threshold=threshold, backend=backend), expected)


@pytest.mark.parametrize(
    ("y", "options", "message"),
    [
        (torch.ones(4, 6, 3), {}, r"y must be \(b, m, k, l, d\) with at least two routes, got \(4, 6, 3\)"),
        (torch.ones(1, 2, 1, 6, 3), {}, r"at least two routes, got \(1, 2, 1, 6, 3\)"),
        (torch.ones(1, 2, 4, 6, 3).half(), {}, "y must be float32 or float64, .* got torch.float16. Pass the outputs"),
        (torch.ones(1, 2, 4, 6, 3), {"gate": "tanh"}, "unknown gate 'tanh'; known: relu, sigmoid, power, exp, none"),
        (torch.ones(1, 2, 4, 6, 3), {"power": 0.5}, "the power of a gate is at least 1; received 0.5"),
        (
            torch.ones(1, 2, 4, 6, 3),
            {"threshold": torch.ones(2)},
            r"threshold must be one number, or one a head, \(m, 1, 1\) = \(2, 1, 1\) for this y; got \(2,\)",
        ),
        (
            torch.ones(1, 2, 4, 6, 3),
            {"threshold": torch.ones(2, 1, 1, device="meta")},
            "threshold is on meta and y on cpu: move them to one device",
        ),
    ],
)
def test_bad_arguments(y, options, message):
    with pytest.raises(ValueError, match=message):
        route_attention(y, **options)
