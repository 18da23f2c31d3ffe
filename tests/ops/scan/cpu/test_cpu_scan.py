import pytest
import torch

from mhsvm.ops.routes.route_scan import route_scan_reference
from mhsvm.ops.scan import chunked, reference
from mhsvm.ops.scan.cpu.cpu_scan import route_scan, selective_scan
from mhsvm.ops.scan.cpu.layout import SPLIT, TILE
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN, sequence_scan
from mhsvm.routes import scan_routes

ALL = ("D", "z", "delta_bias")


@pytest.fixture
def check(outputs_and_gradients, relative_error, tolerance):
    """Compare the output, the last state and every gradient with the reference in float64."""

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
def test_lengths_and_groups(sequence_inputs, check, length, groups):
    check(sequence_inputs(d=6, length=length, groups=groups, dtype=torch.float32), delta_softplus=True)


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("n", [1, 2, 16, 17, 64])
@pytest.mark.parametrize("d", [16, SPLIT + 17])
def test_sizes_of_the_state_and_of_a_group(sequence_inputs, check, n, d):
    check(sequence_inputs(b=1, d=2 * d, n=n, length=70, dtype=torch.float32), delta_softplus=True)


@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",), ALL])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_options(sequence_inputs, check, optional, delta_softplus):
    check(sequence_inputs(optional=optional, dtype=torch.float32), delta_softplus=delta_softplus)


@pytest.mark.parametrize("d", [32, 40])
def test_channels_first(sequence_inputs, check, d):
    inputs = sequence_inputs(d=d, n=16, dtype=torch.float32)
    inputs = {name: x.detach().mT.contiguous().mT if x.dim() > 2 else x for name, x in inputs.items()}
    check({name: x.detach().requires_grad_() for name, x in inputs.items()}, delta_softplus=True)


def test_slices_of_larger_tensors(sequence_inputs, check):
    inputs = {
        name: x.detach().repeat_interleave(2, dim=-1)[..., ::2]
        for name, x in sequence_inputs(dtype=torch.float32).items()
    }
    assert not any(x.is_contiguous() for x in inputs.values())
    check({name: x.requires_grad_() for name, x in inputs.items()})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_16_bit_inputs(sequence_inputs, check, dtype):
    inputs = sequence_inputs(d=20, n=16, dtype=dtype)
    check(inputs, delta_softplus=True)
    y, state = selective_scan(**inputs, return_last_state=True)
    assert (y.dtype, state.dtype) == (dtype, torch.float32)


@pytest.mark.parametrize("exponent", [-50.0, -1e-6])
def test_extreme_decays_over_16384_steps(sequence_inputs, outputs_and_gradients, relative_error, exponent):
    exact = sequence_inputs(b=1, d=2, n=2, length=16384, groups=1, optional=())
    with torch.no_grad():
        exact["delta"].fill_(0.1)
        exact["A"].fill_(exponent / 0.1)
        # With inputs of one sign, errors do not average out.
        for name in ("u", "B", "C"):
            exact[name].abs_()
    inputs = {name: x.detach().float().requires_grad_() for name, x in exact.items()}
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    # Its own tests compare it with the reference, which is too slow for so many steps.
    expected = outputs_and_gradients(chunked.selective_scan, exact)
    actual = outputs_and_gradients(selective_scan, inputs)
    for name, tensor in expected.items():
        # Products of rounded decays have an error of 1e-4 here; the sums over 16384 steps are in float32.
        assert relative_error(actual[name], tensor) < 3e-5, name


def test_overflow_and_nan_are_not_hidden():
    one = torch.ones(1, 3, 1)
    y = selective_scan(one, 1000 * one, torch.ones(1, 1), one[..., None], one[..., None])
    assert not y[0, -1, 0].isfinite()
    for name in ("u", "delta", "A", "B", "C"):
        arguments = {"u": one, "delta": one, "A": -torch.ones(1, 1), "B": one[..., None], "C": one[..., None]}
        arguments[name] = torch.full_like(arguments[name], torch.nan)
        assert selective_scan(**arguments).isnan().all(), name


def test_gradients_are_the_same_bits_in_every_run_and_on_any_number_of_threads(sequence_inputs, outputs_and_gradients):
    inputs = sequence_inputs(b=3, d=2 * (SPLIT + 8), n=16, length=300, dtype=torch.float32)
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


def test_nothing_is_kept_for_a_backward_pass_that_will_not_come(sequence_inputs):
    inputs = sequence_inputs(dtype=torch.float32)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()), lambda x: x):
        with torch.no_grad():
            assert not selective_scan(**inputs).requires_grad
        assert not kept
        selective_scan(**inputs)
    assert kept


@pytest.mark.parametrize(("h", "w", "d"), [(9, 16, 24), (3, 5, 40)])
def test_routes(relative_error, h, w, d):
    """Compare a scan of several tiles and splits with the reference in float64."""
    b, m, k, n, r = 2, 2, 4, 16, 2
    orders, inverses = zip(*(scan_routes(pattern, h, w) for pattern in ("X", "S")), strict=True)
    routes = torch.stack(orders), torch.stack(inverses)
    generator = torch.Generator().manual_seed(0)
    shapes = ((b, h * w, m, d), (m, k, r + 2 * n, d), (m, k, d, r), (m, k, d), (m, k, d, n), (m, k, d))
    tensors = [torch.randn(shape, generator=generator) for shape in shapes]
    tensors[1] *= d**-0.5
    tensors[4] = -tensors[4].exp()
    inputs = [x.requires_grad_() for x in tensors]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    expected = route_scan_reference(*exact, *routes, scan=chunked.selective_scan)
    actual = route_scan(*inputs, *routes)
    grad_output = torch.randn(expected.shape, generator=generator)
    assert relative_error(actual, expected) < 1e-5
    gradients = torch.autograd.grad(actual, inputs, grad_output)
    for i, gradient in enumerate(torch.autograd.grad(expected, exact, grad_output.double())):
        assert relative_error(gradients[i], gradient) < 1e-5, i


def test_float64_is_left_to_others(sequence_inputs):
    inputs = sequence_inputs(dtype=torch.float64)
    with pytest.raises(ValueError, match="'cpu' cannot run .*: it keeps the state in float32, and u is float64"):
        sequence_scan(**inputs, backend="cpu")
    assert SELECTIVE_SCAN.choose("auto", *inputs.values()).backend == "chunked"


def test_missing_numba_is_named(monkeypatch, sequence_inputs):
    monkeypatch.setattr("mhsvm.ops.scan.cpu.cpu_scan._NUMBA_IS_MISSING", True)
    with pytest.raises(ValueError, match="'cpu' cannot run .*: numba is not installed: pip install numba"):
        sequence_scan(**sequence_inputs(dtype=torch.float32), backend="cpu")
