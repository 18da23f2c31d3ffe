import pytest
import torch
import torch.nn.functional as F
from torch._subclasses import FakeTensorMode

from mhsvm.ops.fused.group_norm import (
    GROUP_NORM_GELU,
    RESIZES,
    cpu_group_norm_gelu,
    group_norm_gelu,
    group_norm_gelu_reference,
    portable_group_norm_gelu,
    triton_group_norm_gelu,
)

SCALE = {"keep": 1, "halve": 0.5, "double": 2}


def make(b, c, h, w, *, resize, skip=True, dtype=torch.float32, device="cpu"):
    """x, weight, bias and skip as leaves; weights of both signs, means far from 0."""
    generator = torch.Generator().manual_seed(c + h)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    size = (b, c, int(h * SCALE[resize]), int(w * SCALE[resize]))
    tensors = 2 * normal(b, c, h, w) + normal(b, c, 1, 1) + 5, normal(c), normal(c), normal(*size) if skip else None
    types = dtype, torch.float32, torch.float32, dtype
    return [None if x is None else x.to(device, d).requires_grad_() for x, d in zip(tensors, types, strict=True)]


def outputs_and_gradients(norm, x, weight, bias, skip, **options):
    y = norm(x, weight, bias, skip=skip, **options)
    seed = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    leaves = {"x": x, "weight": weight, "bias": bias, "skip": skip}
    leaves = {name: leaf for name, leaf in leaves.items() if leaf is not None}
    gradients = torch.autograd.grad(y, tuple(leaves.values()), seed.to(y))
    return {"y": y} | dict(zip(leaves, gradients, strict=True))


@pytest.mark.interpreter
@pytest.mark.parametrize(("resize", "h", "w"), [("keep", 1, 2), ("double", 1, 1), ("double", 1, 3), ("double", 2, 1)])
def test_triton_takes_the_smallest_maps(relative_error, resize, h, w, kernel_device):
    leaves = make(2, 8, h, w, resize=resize, device=kernel_device)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = outputs_and_gradients(group_norm_gelu_reference, *exact, groups=2, resize=resize)
    for name, tensor in outputs_and_gradients(triton_group_norm_gelu, *leaves, groups=2, resize=resize).items():
        assert relative_error(tensor, expected[name]) < 1e-5, name


@pytest.mark.interpreter
@pytest.mark.parametrize("resize", RESIZES)
def test_triton_takes_and_keeps_any_layout(relative_error, resize, kernel_device):
    x, weight, bias, skip = make(2, 8, 4, 6, resize=resize, device=kernel_device)
    last = x.detach().to(memory_format=torch.channels_last).requires_grad_()
    transposed = x.detach().mT.contiguous().mT.requires_grad_()
    assert not transposed.is_contiguous()
    expected = outputs_and_gradients(group_norm_gelu_reference, x, weight, bias, skip, groups=4, resize=resize)
    for leaf in (last, transposed):
        actual = outputs_and_gradients(triton_group_norm_gelu, leaf, weight, bias, skip, groups=4, resize=resize)
        for name, tensor in actual.items():
            assert relative_error(tensor, expected[name]) < 2e-6, name
        for name in ("y", "x"):
            assert actual[name].is_contiguous(memory_format=torch.channels_last) == (leaf is last)


@pytest.mark.interpreter
def test_triton_takes_columns_with_any_stride(relative_error, kernel_device):
    x, weight, bias, skip = make(2, 8, 3, 1, resize="keep", device=kernel_device)
    column = x.detach().as_strided(x.shape, (24, 3, 1, 7)).requires_grad_()
    expected = outputs_and_gradients(group_norm_gelu_reference, x, weight, bias, skip, groups=4, resize="keep")
    actual = outputs_and_gradients(triton_group_norm_gelu, column, weight, bias, skip, groups=4, resize="keep")
    for name, tensor in actual.items():
        assert relative_error(tensor, expected[name]) < 2e-6, name


@pytest.mark.interpreter
def test_triton_gives_the_gradient_to_the_first_of_equal_pixels(kernel_device):
    x = torch.zeros(1, 2, 2, 4, device=kernel_device)
    x[..., 2:] = torch.tensor([[1.0, 2.0], [2.0, 0.0]])
    x.requires_grad_()
    leaves = x, torch.tensor([1.0, -1.0], device=kernel_device), torch.zeros(2, device=kernel_device)
    y = triton_group_norm_gelu(*leaves, skip=None, groups=2, resize="halve")
    (gradient,) = torch.autograd.grad(y.sum(), x)
    (expected,) = torch.autograd.grad(group_norm_gelu_reference(*leaves, groups=2, resize="halve").sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("resize", RESIZES)
def test_elsewhere_it_is_torchs_own(monkeypatch, resize):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    x, weight, bias, skip = make(2, 8, 4, 6, resize=resize, dtype=torch.float64)
    weight, bias = weight.double(), bias.double()
    expected = F.group_norm(x, 4, weight, bias)
    if resize == "halve":
        expected = F.max_pool2d(expected, 2)
    elif resize == "double":
        expected = F.interpolate(expected, scale_factor=2, mode="bilinear", align_corners=True)
    expected = F.gelu(expected) + skip
    assert torch.equal(group_norm_gelu(x, weight, bias, groups=4, resize=resize, skip=skip), expected)
    compiled = torch.compile(group_norm_gelu, backend="aot_eager", fullgraph=True)
    x, weight, bias, skip = (leaf.detach() for leaf in (x, weight, bias, skip))
    torch.testing.assert_close(compiled(x, weight, bias, groups=4, resize=resize, skip=skip), expected.detach())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"resize": "triple"}, "resize is one of keep, halve, double; received 'triple'"),
        ({"groups": 3}, r"with c a multiple of groups=3; received \(2, 8, 5, 6\)"),
        ({"resize": "halve"}, "a map to be halved has even sides; received 5 x 6"),
        ({"weight": torch.ones(4)}, r"one number for each of 8 channels; received \(4,\) and \(8,\)"),
        (
            {"skip": torch.ones(2, 8, 5, 6), "resize": "double"},
            r"the output, \(2, 8, 10, 12\); received \(2, 8, 5, 6\)",
        ),
    ],
)
def test_bad_input(changes, message):
    options = {"weight": torch.ones(8), "bias": torch.ones(8), "groups": 4, **changes}
    with pytest.raises(ValueError, match=message):
        group_norm_gelu(torch.ones(2, 8, 5, 6), **options)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_digits_are_kept_where_the_mean_is_many_deviations(layout):
    generator = torch.Generator().manual_seed(0)
    x, grad_output = (torch.randn(2, 8, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    weight, bias = torch.rand(8, dtype=torch.float64) + 0.5, torch.randn(8, dtype=torch.float64)
    maps = {
        dtype: (100 + 3 * x).to(dtype, memory_format=layout).requires_grad_()
        for dtype in (torch.float64, torch.float32)
    }
    results = {}
    for dtype, each in maps.items():
        y = group_norm_gelu_reference(each, weight.to(dtype), bias.to(dtype), groups=4)
        results[dtype] = y, *torch.autograd.grad(y, each, grad_output.to(dtype))
    for exact, found in zip(results[torch.float64], results[torch.float32], strict=True):
        assert (found - exact).abs().max() < 4e-5 * exact.abs().max()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("skip", [False, True])
def test_the_portable_form_is_the_same_operation(relative_error, resize, skip):
    leaves = make(2, 8, 4, 6, resize=resize, skip=skip)
    exact = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = outputs_and_gradients(group_norm_gelu_reference, *exact, groups=4, resize=resize)
    for name, tensor in outputs_and_gradients(portable_group_norm_gelu, *exact, groups=4, resize=resize).items():
        assert relative_error(tensor, expected[name]) < 1e-12, name


def test_the_portable_form_keeps_its_digits_far_from_0():
    x = 100 + 3 * torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    weight, bias = torch.ones(8), torch.zeros(8)
    expected = F.gelu(F.group_norm(x.double(), 4))
    for layout in (torch.contiguous_format, torch.channels_last):
        found = portable_group_norm_gelu(x.to(memory_format=layout), weight, bias, groups=4)
        assert (found - expected).abs().max() < 1e-5


def last(x):
    return None if x is None else x.detach().contiguous(memory_format=torch.channels_last).requires_grad_()


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize("skip", [False, True])
@pytest.mark.parametrize(("c", "groups", "h", "w"), [(8, 4, 8, 6), (24, 4, 4, 2), (12, 3, 2, 4), (48, 4, 2, 2)])
def test_cpu_kernels_agree_with_float64(relative_error, resize, skip, c, groups, h, w):
    x, weight, bias, skip = make(2, c, h, w, resize=resize, skip=skip)
    exact = [None if leaf is None else leaf.detach().double().requires_grad_() for leaf in (x, weight, bias, skip)]
    expected = outputs_and_gradients(group_norm_gelu_reference, *exact, groups=groups, resize=resize)
    found = outputs_and_gradients(cpu_group_norm_gelu, last(x), weight, bias, last(skip), groups=groups, resize=resize)
    for name, tensor in found.items():
        assert relative_error(tensor, expected[name]) < 4e-6, name
    assert found["y"].is_contiguous(memory_format=torch.channels_last)
    assert found["x"].is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("resize", "h", "w"), [("keep", 1, 2), ("double", 1, 3), ("double", 3, 1), ("double", 5, 7)])
def test_cpu_kernels_take_odd_and_narrow_maps(relative_error, resize, h, w):
    leaves = make(2, 8, h, w, resize=resize)
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    expected = outputs_and_gradients(group_norm_gelu_reference, *exact, groups=2, resize=resize)
    for name, tensor in outputs_and_gradients(cpu_group_norm_gelu, *leaves, groups=2, resize=resize).items():
        assert relative_error(tensor, expected[name]) < 4e-6, name


def test_cpu_kernels_keep_digits_far_from_0_and_their_bits(relative_error):
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(3, 8, 64, 64, generator=generator, dtype=torch.float64) for _ in range(2))
    x = (100 + 3 * x).float()
    weight, bias = torch.rand(8, generator=generator) + 0.5, torch.randn(8, generator=generator)

    def results(norm, x, weight, bias):
        x.requires_grad_()
        y = norm(x, weight, bias, groups=4)
        return y, *torch.autograd.grad(y, x, grad.to(y))

    expected = results(group_norm_gelu_reference, x.double(), weight.double(), bias.double())
    found = results(cpu_group_norm_gelu, last(x), weight, bias)
    for a, b in zip(found, expected, strict=True):
        assert relative_error(a, b) < 4e-6
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        again = results(cpu_group_norm_gelu, last(x), weight, bias)
    finally:
        torch.set_num_threads(threads)
    assert all(map(torch.equal, found, again))


def test_cpu_kernels_give_the_gradient_to_the_first_of_equal_pixels():
    x = torch.zeros(1, 2, 2, 4)
    x[..., 2:] = torch.tensor([[1.0, 2.0], [2.0, 0.0]])
    x = last(x)
    leaves = x, torch.tensor([1.0, -1.0]), torch.zeros(2)
    (gradient,) = torch.autograd.grad(cpu_group_norm_gelu(*leaves, groups=2, resize="halve").sum(), x)
    (expected,) = torch.autograd.grad(group_norm_gelu_reference(*leaves, groups=2, resize="halve").sum(), x)
    torch.testing.assert_close(gradient, expected, rtol=1e-5, atol=1e-6)


def test_cpu_gelu_has_the_digits_of_float64_everywhere():
    # a group of one value and weight 0 gives GELU(bias)
    bias = torch.linspace(-20, 20, 4096)
    y = cpu_group_norm_gelu(torch.zeros(1, 4096, 1, 1), torch.zeros(4096), bias, groups=1).flatten()
    expected = F.gelu(bias.double())
    assert ((y - expected).abs() <= 3e-7 * expected.abs() + 1e-9).all()


def test_cpu_kernels_are_chosen_for_channels_last_maps_in_float32(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)

    def chosen(x):
        return GROUP_NORM_GELU.choose("auto", x, torch.ones(8), torch.ones(8), groups=4).backend

    x = torch.ones(2, 8, 4, 4)
    assert chosen(last(x)) == "cpu"
    assert chosen(x) == chosen(last(x).double()) == chosen(last(x).bfloat16()) == "reference"


def test_cpu_kernels_take_arguments_by_name_and_refuse_float64():
    x = last(torch.ones(2, 8, 4, 4))
    named = {"weight": torch.ones(8), "bias": torch.ones(8), "groups": 4}
    assert GROUP_NORM_GELU.choose("cpu", x=x, **named).backend == "cpu"
    with pytest.raises(ValueError, match="'cpu' cannot run .*: its kernels compute in float32, and the map is float64"):
        GROUP_NORM_GELU.choose("cpu", x=x.double(), **named)


def test_cpu_kernels_convert_maps_of_16_bits(relative_error):
    x, weight, bias, skip = make(2, 8, 4, 6, resize="keep", dtype=torch.bfloat16)
    y = group_norm_gelu(x, weight, bias, groups=4, skip=skip, backend="cpu")
    expected = group_norm_gelu_reference(x.float(), weight, bias, groups=4, skip=skip.float())
    assert y.dtype == torch.bfloat16
    assert relative_error(y, expected) < 4e-3


@pytest.mark.parametrize("name", ["reference", "cpu", "portable"])
def test_one_value_a_group_is_its_bias(name):
    bias = torch.tensor([-1.0, 0.0, 1.0, 2.0])
    y = group_norm_gelu(torch.randn(1, 4, 1, 1), torch.ones(4), bias, groups=4, backend=name)
    torch.testing.assert_close(y.ravel(), F.gelu(bias))


def test_nan_spreads_over_its_group_in_cpu_kernels():
    x = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    x[0, 0, 1, 2] = float("nan")
    y = cpu_group_norm_gelu(last(x), torch.ones(8), torch.zeros(8), groups=4)
    assert y[:, :2].isnan().all()
    assert not y[:, 2:].isnan().any()


def test_cpu_kernels_take_an_empty_batch():
    x, weight, bias, _ = make(2, 8, 4, 6, resize="halve")
    empty = last(x[:0])
    y = cpu_group_norm_gelu(empty, weight, bias, groups=4, resize="halve")
    assert y.shape == (0, 8, 2, 3)
    assert torch.autograd.grad(y.sum(), weight)[0].eq(0).all()


def test_cpu_kernels_leave_tensors_without_memory_to_torch():
    with FakeTensorMode():
        x = torch.empty(2, 8, 4, 6).contiguous(memory_format=torch.channels_last)
        y = cpu_group_norm_gelu(x, torch.ones(8), torch.ones(8), groups=4, resize="double")
    assert y.shape == (2, 8, 8, 12)
