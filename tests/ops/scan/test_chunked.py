import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from mhsvm.ops.scan import chunked, reference

ALL = ("D", "z", "delta_bias")


class LargestTensor(TorchDispatchMode):
    """Record the number of elements of the largest tensor that any operation returns."""

    def __init__(self):
        super().__init__()
        self.numel = 0

    def __torch_dispatch__(self, operation, types, arguments=(), keywords=None):
        result = operation(*arguments, **(keywords or {}))
        self.numel = max([self.numel, *(x.numel() for x in tree_leaves(result) if torch.is_tensor(x))])
        return result


@pytest.fixture
def check(outputs_and_gradients, relative_error):
    """Compare the output and every gradient with the reference in float64."""

    def compare(inputs, *, chunk_size, **options):
        expected = outputs_and_gradients(reference.selective_scan, inputs, **options)
        actual = outputs_and_gradients(chunked.selective_scan, inputs, chunk_size=chunk_size, **options)
        for name, tensor in expected.items():
            assert relative_error(actual[name], tensor) < 1e-9, name

    return compare


@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(
    ("length", "chunk_size"), [(1, 1), (1, 64), (63, 1), (63, 16), (100, 30), (100, 256), (1000, 60)]
)
def test_equals_reference(sequence_inputs, check, length, chunk_size, groups):
    check(sequence_inputs(length=length, groups=groups), chunk_size=chunk_size, delta_softplus=True)


@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",), ALL])
@pytest.mark.parametrize("delta_softplus", [False, True])
def test_equals_reference_with_any_options(sequence_inputs, check, optional, delta_softplus):
    check(sequence_inputs(optional=optional), chunk_size=30, delta_softplus=delta_softplus)


def test_equals_reference_on_non_contiguous_inputs(sequence_inputs, check):
    inputs = {
        name: (x.detach().mT.contiguous().mT if x.dim() > 1 else x.detach().repeat_interleave(2)[::2])
        for name, x in sequence_inputs().items()
    }
    assert not any(x.is_contiguous() for x in inputs.values())
    check({name: x.requires_grad_() for name, x in inputs.items()}, chunk_size=30)


def test_gradients_with_every_option(sequence_inputs):
    inputs = sequence_inputs(b=2, d=4, n=2, length=7, groups=2)

    def scan(*tensors):
        return chunked.selective_scan(*tensors, delta_softplus=True, return_last_state=True, chunk_size=4)

    assert torch.autograd.gradcheck(scan, tuple(inputs.values()))


@pytest.mark.parametrize(("dtype", "resolution"), [(torch.float16, 2**-11), (torch.bfloat16, 2**-8)])
def test_16_bit_inputs_are_rounded_only_at_the_end(
    sequence_inputs, outputs_and_gradients, relative_error, dtype, resolution
):
    inputs = sequence_inputs(dtype=dtype)
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    expected = outputs_and_gradients(reference.selective_scan, exact, delta_softplus=True)
    actual = outputs_and_gradients(chunked.selective_scan, inputs, delta_softplus=True, chunk_size=30)
    assert actual["y"].dtype == dtype
    assert actual["state"].dtype == torch.float32
    assert relative_error(actual["state"], expected["state"]) < 1e-6
    assert relative_error(actual["y"], expected["y"]) < resolution
    for name, x in inputs.items():
        gradient = actual[f"gradient of {name}"]
        assert gradient.dtype == dtype
        # The gradient of y was rounded too.
        assert relative_error(gradient, expected[f"gradient of {name}"]) < 2 * resolution, x.shape


@pytest.mark.parametrize("exponent", [-50.0, -1e-6])
@pytest.mark.parametrize("chunk_size", [256, None])
def test_extreme_decays_over_16384_steps(sequence_inputs, outputs_and_gradients, relative_error, exponent, chunk_size):
    exact = sequence_inputs(b=1, d=2, n=2, length=16384, groups=1, optional=())
    with torch.no_grad():
        exact["delta"].fill_(0.1)
        exact["A"].fill_(exponent / 0.1)
        # With inputs of one sign, errors do not average out.
        for name in ("u", "B", "C"):
            exact[name].abs_()
    inputs = {name: x.detach().float().requires_grad_() for name, x in exact.items()}
    # The exact values of the float32 inputs.
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    with torch.no_grad():
        y, state = reference.selective_scan(**exact, return_last_state=True)
    # The tests above compare it with the reference in float64, which is too slow for so many steps.
    expected = outputs_and_gradients(chunked.selective_scan, exact)
    assert relative_error(expected["y"], y) < 1e-9
    assert relative_error(expected["state"], state) < 1e-9
    actual = outputs_and_gradients(chunked.selective_scan, inputs, chunk_size=chunk_size)
    for name, tensor in expected.items():
        # Products of rounded decays have an error of 1e-4 here.
        assert relative_error(actual[name], tensor) < 3e-5, name


def test_memory_is_bounded_by_the_chunk(sequence_inputs):
    b, d, n, length, chunk_size = 1, 64, 16, 16384, 256
    inputs = sequence_inputs(b=b, d=d, n=n, length=length, groups=1, dtype=torch.float32)
    saved = {}

    def note(x):
        saved[x.data_ptr()] = x.numel()
        return x

    with LargestTensor() as largest:
        with torch.autograd.graph.saved_tensors_hooks(note, lambda x: x):
            y = chunked.selective_scan(**inputs, delta_softplus=True, chunk_size=chunk_size)
        y.sum().backward()
    assert inputs["A"].grad.isfinite().all()
    states, one_input = b * d * n * length, b * d * length
    assert largest.numel < 1.01 * max(one_input, b * d * n * chunk_size)
    # Tensors like delta, u, z and y, but only one state a chunk.
    assert sum(saved.values()) < 10 * one_input < states


def test_default_chunk_keeps_memory_whatever_the_batch(sequence_inputs):
    inputs = sequence_inputs(b=16, d=64, n=16, length=256, groups=1, dtype=torch.float32)
    one_step = 16 * 64 * 16
    with LargestTensor() as largest:
        chunked.selective_scan(**inputs).sum().backward()
    assert 2**20 < largest.numel <= 2**21 + one_step


def test_no_graph_is_kept_without_gradients(sequence_inputs):
    inputs = sequence_inputs()
    with torch.no_grad():
        y, state = chunked.selective_scan(**inputs, return_last_state=True)
    assert not y.requires_grad
    assert not state.requires_grad


def test_chunk_size_below_one():
    u = torch.ones(1, 4, 1)
    with pytest.raises(ValueError, match="chunk_size must be at least 1 step, got 0"):
        chunked.selective_scan(u, u, -torch.ones(1, 1), u[..., None], u[..., None], chunk_size=0)
