import pytest
import torch

from mhsvm.ops.fused.skip_bridge import SKIP_BRIDGE, skip_bridge, skip_bridge_reference, triton_skip_bridge


def make(sizes, *, batch=2, dtype=torch.float32, weights=torch.float32, device):
    """Maps and parameters in the order of the operator, as leaves."""
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
    """All outputs, and the gradients of all leaves, by name."""
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


@pytest.mark.interpreter
def test_triton_gives_the_gradient_to_the_first_of_equal_channels(relative_error, kernel_device):
    skips, *parameters = make([(11, 3, 4)], device=kernel_device, batch=1)
    skips = [(skip.detach() * 0.7).round().requires_grad_() for skip in skips]
    greatest = skips[0].detach() == skips[0].detach().amax(1, keepdim=True)
    assert (greatest.sum(1) > 1).any()
    actual = outputs_and_gradients(triton_skip_bridge, (skips, *parameters))
    expected = outputs_and_gradients(skip_bridge_reference, exactly((skips, *parameters)))
    assert_close(relative_error, actual, expected, 1e-5)


@pytest.mark.interpreter
def test_a_map_that_is_not_used_has_a_gradient_through_the_others(relative_error, kernel_device):
    arguments = make([(4, 3, 2), (3, 2, 2)], device=kernel_device, batch=1)
    actual = outputs_and_gradients(triton_skip_bridge, arguments, used=slice(1))
    expected = outputs_and_gradients(skip_bridge_reference, exactly(arguments), used=slice(1))
    assert_close(relative_error, actual, expected, 1e-5)


@pytest.mark.interpreter
def test_triton_takes_weights_of_16_bits(relative_error, tolerance, kernel_device):
    arguments = make([(4, 3, 3)], device=kernel_device, batch=1, dtype=torch.bfloat16, weights=torch.bfloat16)
    actual = outputs_and_gradients(triton_skip_bridge, arguments)
    expected = outputs_and_gradients(skip_bridge_reference, exactly(arguments))
    assert all(tensor.dtype == torch.bfloat16 for tensor in actual.values())
    assert_close(relative_error, actual, expected, tolerance[torch.bfloat16])


@pytest.mark.interpreter
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast_types_are_torchs_and_numbers_more_exact(relative_error, tolerance, dtype, kernel_device):
    arguments = make([(4, 5, 3)], device=kernel_device, batch=1, dtype=dtype)
    expected = outputs_and_gradients(skip_bridge_reference, exactly(arguments))
    with torch.autocast(kernel_device.type, dtype=torch.bfloat16):
        actual = outputs_and_gradients(skip_bridge, arguments)
        torchs = outputs_and_gradients(skip_bridge_reference, arguments)
    assert [x.dtype for x in actual.values()] == [x.dtype for x in torchs.values()]
    assert_close(relative_error, actual, expected, 1e-5 if dtype == torch.float32 else tolerance[dtype])


@pytest.mark.interpreter
def test_triton_is_known_to_torchs_compiler(kernel_device):
    arguments = make([(4, 3, 3)], device=kernel_device, batch=1)
    compiled = torch.compile(skip_bridge, backend="aot_eager", fullgraph=True)
    actual = outputs_and_gradients(compiled, arguments)
    expected = outputs_and_gradients(triton_skip_bridge, arguments)
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


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


@pytest.mark.interpreter
def test_maps_of_several_types_are_left_to_torch(kernel_device):
    skips, *parameters = make([(2, 2, 2), (3, 1, 2)], device=kernel_device)
    mixed = [skips[0], skips[1].bfloat16()]
    assert SKIP_BRIDGE.choose("auto", mixed, *parameters).backend == "reference"
    with pytest.raises(ValueError, match="take maps of one type, and these are torch.float32, torch.bfloat16"):
        skip_bridge(mixed, *parameters, backend="triton")


def test_the_portable_form_is_the_same_operation(relative_error):
    arguments = exactly(make([(11, 3, 4), (4, 2, 2)], device="cpu"))
    portable = SKIP_BRIDGE.implementation("portable").run
    assert_close(
        relative_error,
        outputs_and_gradients(portable, arguments),
        outputs_and_gradients(skip_bridge_reference, arguments),
        1e-12,
    )
