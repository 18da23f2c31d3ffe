import pytest
import torch

from mhsvm.ops.routes.route_scan import composed_route_scan
from mhsvm.ops.scan import chunked, reference
from mhsvm.ops.scan.cpu.layout import PART, TILE
from mhsvm.ops.scan.cpu.scan import route_scan, selective_scan
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN
from mhsvm.routes import scan_routes

ALL = ("D", "z", "delta_bias")


@pytest.fixture
def check(outputs_and_gradients, relative_error, tolerance):
    """Holds output, last state and every gradient to the reference in float64."""

    def compare(inputs, *, delta_softplus=False):
        exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
        expected = outputs_and_gradients(reference.selective_scan, exact, delta_softplus=delta_softplus)
        actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=delta_softplus)
        for name, tensor in expected.items():
            assert relative_error(actual[name], tensor) < tolerance[inputs["u"].dtype], name

    return compare


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("length", [1, TILE - 1, TILE, 100, 1000])
def test_lengths_and_groups(scan_inputs, check, length, groups):
    check(scan_inputs(d=6, length=length, groups=groups, dtype=torch.float32), delta_softplus=True)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("n", [1, 2, 16, 17, 64])
@pytest.mark.parametrize("d", [16, PART + 17])
def test_sizes_of_the_state_and_of_a_group(scan_inputs, check, n, d):
    check(scan_inputs(b=1, d=2 * d, n=n, length=70, dtype=torch.float32), delta_softplus=True)


@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",), ALL])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_options(scan_inputs, check, optional, delta_softplus):
    check(scan_inputs(optional=optional, dtype=torch.float32), delta_softplus=delta_softplus)


@pytest.mark.parametrize("d", [32, 40])
def test_channels_last(scan_inputs, check, d):
    inputs = scan_inputs(d=d, n=16, dtype=torch.float32)
    inputs = {name: x.detach().mT.contiguous().mT if x.dim() > 2 else x for name, x in inputs.items()}
    check({name: x.detach().requires_grad_() for name, x in inputs.items()}, delta_softplus=True)


def test_slices_of_larger_tensors(scan_inputs, check):
    inputs = {
        name: x.detach().repeat_interleave(2, dim=-1)[..., ::2] for name, x in scan_inputs(dtype=torch.float32).items()
    }
    assert not any(x.is_contiguous() for x in inputs.values())
    check({name: x.requires_grad_() for name, x in inputs.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs(scan_inputs, check, dtype):
    inputs = scan_inputs(d=20, n=16, dtype=dtype)
    check(inputs, delta_softplus=True)
    y, state = selective_scan(**inputs, return_last_state=True)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("exponent", [-50.0, -1e-6])
def test_extreme_decays_over_16384_steps(scan_inputs, outputs_and_gradients, relative_error, exponent):
    exact = scan_inputs(b=1, d=2, n=2, length=16384, groups=1, optional=())
    with torch.no_grad():
        exact["delta"].fill_(0.1)
        exact["A"].fill_(exponent / 0.1)
        # Nothing averages out where all that is added has one sign.
        for name in ("u", "B", "C"):
            exact[name].abs_()
    inputs = {name: x.detach().float().requires_grad_() for name, x in exact.items()}
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    # Held to the reference there, and far quicker over so many steps.
    expected = outputs_and_gradients(chunked.selective_scan, exact)
    actual = outputs_and_gradients(selective_scan, inputs)
    for name, tensor in expected.items():
        # Decays rounded one by one are off by 1e-4 here; the sums over 16384 steps are in float32.
        assert relative_error(actual[name], tensor) < 3e-5, name


def test_overflow_and_nan_are_not_hidden():
    one = torch.ones(1, 1, 3)
    y = selective_scan(one, 1000 * one, torch.ones(1, 1), one[:, None], one[:, None])
    assert not y[0, 0, -1].isfinite()
    for name in ("u", "delta", "A", "B", "C"):
        arguments = {"u": one, "delta": one, "A": -torch.ones(1, 1), "B": one[:, None], "C": one[:, None]}
        arguments[name] = torch.full_like(arguments[name], torch.nan)
        assert selective_scan(**arguments).isnan().all(), name


def test_gradients_are_the_same_bits_in_every_run_and_on_any_number_of_threads(scan_inputs, outputs_and_gradients):
    inputs = scan_inputs(b=3, d=2 * (PART + 8), n=16, length=300, dtype=torch.float32)
    threads = torch.get_num_threads()
    runs = []
    try:
        for count in (1, 2, 5, 5):
            torch.set_num_threads(count)
            runs.append(outputs_and_gradients(selective_scan, inputs, delta_softplus=True))
    finally:
        torch.set_num_threads(threads)
    for run in runs[1:]:
        for name, tensor in runs[0].items():
            assert torch.equal(run[name], tensor), name


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come(scan_inputs):
    inputs = scan_inputs(dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda x: x):
        with torch.no_grad():
            assert not selective_scan(**inputs).requires_grad
        assert not kept
        selective_scan(**inputs)
    assert kept


@pytest.mark.parametrize(("h", "w", "d"), [(9, 16, 24), (3, 5, 40)])
def test_routes(relative_error, h, w, d):
    """Long enough for several tiles, wide enough for several parts; against the composition in float64."""
    b, m, k, n, r = 2, 2, 4, 16, 2
    orders, inverses = zip(*(scan_routes(pattern, h, w) for pattern in ("X", "S")), strict=True)
    routes = torch.stack(orders), torch.stack(inverses)
    generator = torch.Generator().manual_seed(0)
    shapes = ((b, h * w, m, d), (b, h * w, m, k, r + 2 * n), (m, k, d, r), (m, k, d), (m, k, d, n), (m, k, d))
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    tensors[4] = -tensors[4].exp()
    inputs = [x.requires_grad_() for x in tensors]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = composed_route_scan(*exact, *routes, scan=chunked.selective_scan)
    actual = route_scan(*inputs, *routes)
    seed = torch.randn(expected.shape, generator=generator)
    assert relative_error(actual, expected) < 1e-5
    gradients = torch.autograd.grad(actual, inputs, seed)
    for i, gradient in enumerate(torch.autograd.grad(expected, exact, seed.double())):
        assert relative_error(gradients[i], gradient) < 1e-5, i


def test_float64_is_left_to_others():
    u = torch.ones(1, 1, 3, dtype=torch.float64)
    with pytest.raises(
        ValueError, match="'cpu' cannot run selective_scan: it keeps the state in float32, and u is float64"
    ):
        SELECTIVE_SCAN.choose("cpu", u, u, u[0])
    assert SELECTIVE_SCAN.choose("auto", u, u, u[0]).backend == "chunked"


def test_missing_numba_is_named(monkeypatch):
    monkeypatch.setattr("mhsvm.ops.scan.cpu.scan._NUMBA_IS_MISSING", True)
    u = torch.ones(1, 1, 3)
    with pytest.raises(ValueError, match="'cpu' cannot run selective_scan: numba is not installed: pip install numba"):
        SELECTIVE_SCAN.choose("cpu", u, u, u[0])
