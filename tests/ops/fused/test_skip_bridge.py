import pytest
import torch

from mhsvm.ops.availability import unavailable_reason
from mhsvm.ops.fused.skip_bridge import composed_skip_bridge, skip_bridge
from mhsvm.ops.fused.skip_bridge_launch import skip_bridge as triton_skip_bridge

needs_interpreter = pytest.mark.skipif(
    not torch.cuda.is_available() and unavailable_reason() is not None, reason="needs Triton's interpreter or a GPU"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


def make(sizes, *, batch=2, dtype=torch.float32, weights=torch.float32, device=DEVICE):
    """Maps, and the parameters as the operator takes them, on leaves."""
    generator = torch.Generator().manual_seed(len(sizes))
    total = sum(c for c, _, _ in sizes)

    def normal(*shape, kind=weights, scale=1.0):
        x = scale * torch.randn(*shape, generator=generator, dtype=torch.float64)
        return x.to(device, kind).requires_grad_()

    skips = [normal(batch, *size, kind=dtype) for size in sizes]
    shared = normal(1, 2, 7, 7, scale=0.3), normal(1), normal(1, 1, 3)
    return skips, *shared, [normal(c, total) for c, _, _ in sizes], [normal(c) for c, _, _ in sizes]


def flatten(arguments):
    return [x for argument in arguments for x in (argument if isinstance(argument, list) else [argument])]


def outputs_and_gradients(bridge, arguments, *, used=slice(None)):
    """Every tensor by name: outputs, then gradients of all leaves."""
    outs = bridge(*arguments)
    generator = torch.Generator().manual_seed(0)
    seeds = [torch.randn(out.shape, generator=generator, dtype=torch.float64).to(out) for out in outs]
    gradients = torch.autograd.grad(outs[used], flatten(arguments), seeds[used])
    skips, *_, weights, _ = arguments
    names = [f"skip {i}" for i in range(len(skips))] + ["spatial weight", "spatial bias", "mix weight"]
    names += [f"{kind} {i}" for kind in ("gate weight", "gate bias") for i in range(len(weights))]
    named = {f"out {i}": out for i, out in enumerate(outs)}
    return named | {f"gradient of {name}": x for name, x in zip(names, gradients, strict=True)}


def exactly(arguments):
    def double(x):
        return [double(part) for part in x] if isinstance(x, list) else x.detach().double().requires_grad_()

    return tuple(double(argument) for argument in arguments)


def assert_close(relative_error, actual, expected, tolerance):
    assert actual.keys() == expected.keys()
    for name, tensor in actual.items():
        assert relative_error(tensor, expected[name]) < tolerance, name


@pytest.fixture
def _small_tiles(monkeypatch):
    """Several tiles a map, several steps over channels, samples and tiles' sums."""
    # A product of a GPU's takes no fewer than 16 samples.
    samples = 2 if DEVICE == "cpu" else 16
    sizes = {"_PIXELS": 32, "_CHANNELS": 4, "_MAX_MIXED": 16, "_SUMS": 2, "_SAMPLES": samples}
    for name, value in sizes.items():
        monkeypatch.setattr(f"mhsvm.ops.fused.skip_bridge_launch.{name}", value)


# Maps of one pixel, of less than a tile and of more, odd sides and channels; more samples than are summed at once.
@needs_interpreter
@pytest.mark.usefixtures("_poisoned_memory", "_small_tiles")
@pytest.mark.parametrize(
    ("sizes", "batch", "dtype"),
    [
        ([(5, 7, 6), (13, 1, 3)], 2, torch.float32),
        ([(1, 1, 1), (1, 2, 1)], 1, torch.float32),
        ([(2, 1, 2)], 3, torch.float32),
        ([(2, 4, 3), (3, 12, 3)], 1, torch.bfloat16),
    ],
)
def test_triton_equals_torchs_own(relative_error, tolerance, sizes, batch, dtype):
    arguments = make(sizes, batch=batch, dtype=dtype)
    actual = outputs_and_gradients(triton_skip_bridge, arguments)
    expected = outputs_and_gradients(composed_skip_bridge, exactly(arguments))
    assert_close(relative_error, actual, expected, 1e-5 if dtype == torch.float32 else tolerance[dtype])
    for name, tensor in actual.items():
        assert tensor.dtype == (dtype if "out" in name or "skip" in name else torch.float32), name


@needs_interpreter
def test_triton_takes_whole_tiles(relative_error):
    arguments = make([(8, 16, 17), (17, 4, 4)], batch=1)
    actual = outputs_and_gradients(triton_skip_bridge, arguments)
    expected = outputs_and_gradients(composed_skip_bridge, exactly(arguments))
    assert_close(relative_error, actual, expected, 1e-5)


@needs_interpreter
def test_triton_gives_the_gradient_to_the_first_of_equal_channels(relative_error):
    skips, *parameters = make([(11, 3, 4)], batch=1)
    skips = [(skip.detach() * 0.7).round().requires_grad_() for skip in skips]
    greatest = skips[0].detach() == skips[0].detach().amax(1, keepdim=True)
    assert (greatest.sum(1) > 1).any()
    actual = outputs_and_gradients(triton_skip_bridge, (skips, *parameters))
    expected = outputs_and_gradients(composed_skip_bridge, exactly((skips, *parameters)))
    assert_close(relative_error, actual, expected, 1e-5)


@needs_interpreter
def test_triton_repeats_itself_bit_for_bit():
    arguments = make([(6, 5, 5)], batch=1)
    first, second = (outputs_and_gradients(triton_skip_bridge, arguments) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


@needs_interpreter
def test_triton_takes_any_layout_of_maps_gradients_and_weights(relative_error):
    skips, spatial_weight, spatial_bias, mix_weight, weights, biases = make([(4, 3, 5), (3, 2, 4)], batch=1)
    skips = [
        skips[0].detach().to(memory_format=torch.channels_last).requires_grad_(),
        skips[1].detach().mT.contiguous().mT.requires_grad_(),
    ]
    weights = [weight.detach().T.contiguous().T.requires_grad_() for weight in weights]
    spatial_weight = spatial_weight.detach().mT.contiguous().mT.requires_grad_()
    assert not any(x.is_contiguous() for x in (*skips, *weights, spatial_weight))
    arguments = skips, spatial_weight, spatial_bias, mix_weight, weights, biases

    def through(bridge):
        return lambda *arguments: [out.transpose(1, 3) for out in bridge(*arguments)]

    actual = outputs_and_gradients(through(triton_skip_bridge), arguments)
    expected = outputs_and_gradients(through(composed_skip_bridge), exactly(arguments))
    assert_close(relative_error, actual, expected, 1e-5)


@needs_interpreter
def test_a_map_that_is_not_used_has_a_gradient_through_the_others(relative_error):
    arguments = make([(4, 3, 2), (3, 2, 2)], batch=1)
    actual = outputs_and_gradients(triton_skip_bridge, arguments, used=slice(1))
    expected = outputs_and_gradients(composed_skip_bridge, exactly(arguments), used=slice(1))
    assert_close(relative_error, actual, expected, 1e-5)


@needs_interpreter
def test_triton_takes_weights_of_16_bits(relative_error, tolerance):
    arguments = make([(4, 3, 3)], batch=1, dtype=torch.bfloat16, weights=torch.bfloat16)
    actual = outputs_and_gradients(triton_skip_bridge, arguments)
    expected = outputs_and_gradients(composed_skip_bridge, exactly(arguments))
    assert all(tensor.dtype == torch.bfloat16 for tensor in actual.values())
    assert_close(relative_error, actual, expected, tolerance[torch.bfloat16])


@needs_interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_types_are_those_of_torch_and_numbers_more_exact(relative_error, tolerance, dtype):
    arguments = make([(4, 5, 3)], batch=1, dtype=dtype)
    expected = outputs_and_gradients(composed_skip_bridge, exactly(arguments))
    with torch.autocast(DEVICE, dtype=torch.bfloat16):
        actual = outputs_and_gradients(skip_bridge, arguments)
        torchs = outputs_and_gradients(composed_skip_bridge, arguments)
    assert [x.dtype for x in actual.values()] == [x.dtype for x in torchs.values()]
    assert_close(relative_error, actual, expected, 1e-5 if dtype == torch.float32 else tolerance[dtype])


@needs_interpreter
def test_triton_is_known_to_torchs_compiler():
    arguments = make([(4, 3, 3)], batch=1)
    compiled = torch.compile(skip_bridge, backend="aot_eager", fullgraph=True)
    actual = outputs_and_gradients(compiled, arguments)
    expected = outputs_and_gradients(triton_skip_bridge, arguments)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@needs_interpreter
@pytest.mark.parametrize(
    ("requested", "types", "taken"),
    [
        (None, (torch.float32, torch.float32), 1),
        ("triton", (torch.bfloat16, torch.bfloat16), 1),
        ("chunked", (torch.float32, torch.float32), 0),
        (None, (torch.float32, torch.bfloat16), 0),
        (None, (torch.float64, torch.float64), 0),
    ],
)
def test_triton_is_taken_where_it_runs(monkeypatch, requested, types, taken):
    calls = []

    def spy(*arguments):
        calls.append(arguments)
        return triton_skip_bridge(*arguments)

    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    if requested is not None:
        monkeypatch.setenv("MHSVM_BACKEND", requested)
    monkeypatch.setattr("mhsvm.ops.fused.skip_bridge_launch.skip_bridge", spy)
    skips, *parameters = make(
        [(2, 2, 2), (3, 1, 2)], weights=torch.float64 if types[0].itemsize == 8 else torch.float32
    )
    skips = [skip.detach().to(dtype) for skip, dtype in zip(skips, types, strict=True)]
    with torch.autocast(DEVICE, dtype=torch.bfloat16, enabled=torch.bfloat16 in types):
        outs = skip_bridge(skips, *parameters)
    assert len(calls) == taken
    assert [out.shape for out in outs] == [skip.shape for skip in skips]


def arguments_of_ones():
    shared = {"spatial_weight": (1, 2, 7, 7), "spatial_bias": (1,), "mix_weight": (1, 1, 3)}
    return {
        "skips": [torch.ones(2, 4, 3, 3), torch.ones(2, 6, 2, 2)],
        **{name: torch.ones(shape) for name, shape in shared.items()},
        "gate_weights": [torch.ones(4, 10), torch.ones(6, 10)],
        "gate_biases": [torch.ones(4), torch.ones(6)],
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skips": []}, r"skips are maps \(b, c_i, h_i, w_i\) of the same batch; received \[\]"),
        ({"skips": [torch.ones(2, 4, 3)]}, r"of the same batch; received \[\(2, 4, 3\)\]"),
        (
            {"skips": [torch.ones(2, 4, 3, 3), torch.ones(1, 6, 2, 2)]},
            r"of the same batch; received \[\(2, 4, 3, 3\), \(1, 6, 2, 2\)\]",
        ),
        (
            {"spatial_weight": torch.ones(1, 2, 5, 5)},
            r"are \(1, 2, 7, 7\), \(1,\) and \(1, 1, 3\); received \(1, 2, 5, 5\), \(1,\) and \(1, 1, 3\)",
        ),
        ({"mix_weight": torch.ones(3)}, r"received \(1, 2, 7, 7\), \(1,\) and \(3,\)"),
        (
            {"gate_weights": [torch.ones(4, 10), torch.ones(6, 6)]},
            r"maps of \[4, 6\] channels have gates with weights \(c_i, 10\) and biases \(c_i\) each; received "
            r"\[\(4, 10\), \(6, 6\)\] and \[\(4,\), \(6,\)\]",
        ),
        ({"gate_biases": [torch.ones(4)]}, r"\[\(4, 10\), \(6, 10\)\] and \[\(4,\)\]"),
    ],
)
def test_bad_input(changes, message):
    with pytest.raises(ValueError, match=message):
        skip_bridge(**arguments_of_ones() | changes)
