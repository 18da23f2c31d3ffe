"""The adapter to mamba_ssm, on a replacement that checks the requirements of its kernels and computes the reference."""

import importlib.abc
import importlib.machinery
import sys
import types

import pytest
import torch

from mhsvm.ops import list_backends, selective_scan
from mhsvm.ops.scan import mamba_ssm, reference

INTERFACE = "mamba_ssm.ops.selective_scan_interface"


@pytest.fixture(autouse=True)
def _fresh_import(monkeypatch):
    mamba_ssm._import_failure.cache_clear()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    yield
    mamba_ssm._import_failure.cache_clear()


def check_as_the_kernels(u, delta, A, B, C, D, z, delta_bias):
    for x in (u, delta, B, C, z):
        assert x is None or (x.dtype == u.dtype and x.is_contiguous())
    for x in (A, D, delta_bias):
        assert x is None or (x.dtype == torch.float32 and x.is_contiguous())
    assert B.dim() == C.dim() == 4


def reference_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus):
    """The reference with the package's order of axes: (b, d, l) and (b, g, n, l)."""
    u, delta, B, C, z = (None if x is None else x.movedim(-1, 1) for x in (u, delta, B, C, z))
    y, last_state = reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, True)
    return y.mT, last_state


class KernelScan(torch.autograd.Function):
    """As in the package: the gradient of the last state is ignored."""

    @staticmethod
    def forward(ctx, u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state):
        inputs = (u, delta, A, B, C, D, z, delta_bias)
        check_as_the_kernels(*inputs)
        ctx.save_for_backward(*inputs)
        ctx.delta_softplus = delta_softplus
        y, last_state = reference_scan(*inputs, delta_softplus)
        return (y, last_state) if return_last_state else y

    @staticmethod
    def backward(ctx, grad_y, *_):
        inputs = [x if x is None else x.detach().requires_grad_() for x in ctx.saved_tensors]
        with torch.enable_grad():
            y, _ = reference_scan(*inputs, ctx.delta_softplus)
        given = [x for x in inputs if x is not None]
        gradients = iter(torch.autograd.grad(y, given, grad_y))
        return *(None if x is None else next(gradients) for x in inputs), None, None


def scan_of_1_x(u, delta, A, B, C, D=None, z=None, delta_bias=None, delta_softplus=False, return_last_state=False):
    return KernelScan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def scan_of_2_x(
    u,
    delta,
    A,
    B,
    C,
    D=None,
    z=None,
    delta_bias=None,
    delta_softplus=False,
    return_last_state=False,
    cu_seqlens=None,
):
    assert cu_seqlens is None
    return KernelScan.apply(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


@pytest.fixture(params=[scan_of_1_x, scan_of_2_x])
def _installed(request, monkeypatch):
    """A replacement that takes CPU tensors."""
    for name in ("mamba_ssm", "mamba_ssm.ops", INTERFACE):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules[INTERFACE].selective_scan_fn = request.param


class BrokenFinder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds mamba_ssm, whose import then fails."""

    def __init__(self, error: ImportError) -> None:
        self.error = error

    def find_spec(self, name, path, target=None):
        return importlib.machinery.ModuleSpec(name, self) if name == "mamba_ssm" else None

    def exec_module(self, module):
        raise self.error


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",), ("D", "z", "delta_bias")])
def test_output_and_every_gradient(sequence_inputs, relative_error, optional, softplus):
    inputs = sequence_inputs(length=33, optional=optional, dtype=torch.float32)
    y = mamba_ssm.selective_scan(**inputs, delta_softplus=softplus)
    exact_inputs = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    exact = reference.selective_scan(**exact_inputs, delta_softplus=softplus)
    assert relative_error(y, exact) < 1e-6
    grad_output = torch.linspace(-1, 1, y.numel()).view(y.shape)
    gradients = torch.autograd.grad(y, tuple(inputs.values()), grad_output)
    exact_gradients = torch.autograd.grad(exact, tuple(exact_inputs.values()), grad_output.double())
    for name, gradient, ref in zip(inputs, gradients, exact_gradients, strict=True):
        assert gradient.dtype == inputs[name].dtype
        assert relative_error(gradient, ref) < 1e-5, name


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_16_bit_types_go_in_and_out(sequence_inputs, relative_error, dtype):
    inputs = sequence_inputs(length=33, dtype=dtype)
    y, state = mamba_ssm.selective_scan(**inputs, return_last_state=True)
    exact, exact_state = reference.selective_scan(
        **{name: x.double() for name, x in inputs.items()}, return_last_state=True
    )
    assert (y.dtype, state.dtype) == (dtype, torch.float32)
    assert relative_error(y, exact) < 2**-8
    assert relative_error(state, exact_state) < 1e-5


@pytest.mark.usefixtures("_installed")
def test_mixed_types_are_computed_in_float32(sequence_inputs, relative_error):
    inputs = sequence_inputs(length=33, dtype=torch.float32)
    mixed = inputs | {"u": inputs["u"].bfloat16(), "B": inputs["B"].half(), "delta": inputs["delta"].double()}
    y = mamba_ssm.selective_scan(**mixed)
    exact = reference.selective_scan(**{name: x.double() for name, x in mixed.items()})
    assert y.dtype == torch.bfloat16
    assert relative_error(y, exact) < 2**-8


@pytest.mark.usefixtures("_installed")
def test_any_memory_order_is_copied(sequence_inputs, relative_error):
    inputs = sequence_inputs(length=33, dtype=torch.float32)
    views = {name: x.transpose(0, -1).contiguous().transpose(0, -1) for name, x in inputs.items()}
    assert not views["u"].is_contiguous()
    assert relative_error(mamba_ssm.selective_scan(**views), reference.selective_scan(**inputs)) < 1e-6


@pytest.mark.usefixtures("_installed")
def test_its_own_memory_order_is_not_copied(sequence_inputs, monkeypatch):
    inputs = {name: x.detach() for name, x in sequence_inputs(length=33, dtype=torch.float32).items()}
    own = {name: x.movedim(1, -1).contiguous().movedim(-1, 1) if x.dim() > 2 else x for name, x in inputs.items()}
    received = []
    scan = sys.modules[INTERFACE].selective_scan_fn

    def watch(*arguments, **options):
        received.extend(x.data_ptr() for x in (*arguments, options["z"]) if x is not None)
        return scan(*arguments, **options)

    monkeypatch.setattr(sys.modules[INTERFACE], "selective_scan_fn", watch)
    mamba_ssm.selective_scan(**own)
    assert received == [own[name].data_ptr() for name in ("u", "delta", "A", "B", "C", "D", "z")]


@pytest.mark.usefixtures("_installed")
def test_a_gradient_of_the_last_state_is_refused_not_dropped(sequence_inputs):
    inputs = sequence_inputs(length=5, dtype=torch.float32)
    y, state = mamba_ssm.selective_scan(**inputs, return_last_state=True)
    y.sum().backward(retain_graph=True)
    assert inputs["u"].grad is not None
    with pytest.raises(ValueError, match="'mamba_ssm' has no gradient of the last state; scan with another backend"):
        (y.sum() + state.sum()).backward()


@pytest.mark.usefixtures("_installed")
def test_it_can_run_where_it_is_installed_beside_a_gpu():
    assert mamba_ssm.unavailable_reason() is None


def test_without_a_gpu_it_is_not_even_imported(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "meta_path", [BrokenFinder(ImportError("imported")), *sys.meta_path])
    assert mamba_ssm.unavailable_reason() == "it needs an NVIDIA GPU, and PyTorch finds none"


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (
            ModuleNotFoundError("No module named 'mamba_ssm'", name="mamba_ssm"),
            "mamba_ssm is not installed: MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation 'mhsvm[mamba]', "
            "which compiles it with nvcc",
        ),
        (
            ModuleNotFoundError("No module named 'selective_scan_cuda'", name="selective_scan_cuda"),
            "mamba_ssm is installed and cannot be imported: No module named 'selective_scan_cuda'",
        ),
        (
            ImportError("selective_scan_cuda.so: undefined symbol: _ZN3c10"),
            "mamba_ssm is installed and cannot be imported: selective_scan_cuda.so: undefined symbol: _ZN3c10",
        ),
    ],
)
def test_an_import_that_fails_says_why(monkeypatch, error, reason):
    monkeypatch.setattr(sys, "meta_path", [BrokenFinder(error), *sys.meta_path])
    assert mamba_ssm.unavailable_reason() == reason


@pytest.mark.usefixtures("_installed")
def test_an_import_without_the_compiled_kernels_is_not_enough(monkeypatch):
    """As releases after 2.3.2 are without MAMBA_KEEP_CUDA_BUILD: imported, and the first call raises."""
    interface = sys.modules[INTERFACE]
    monkeypatch.setattr(interface, "selective_scan_cuda", None, raising=False)
    reason = mamba_ssm.unavailable_reason()
    assert "without its CUDA kernels (No module named 'selective_scan_cuda'): reinstall it by" in reason
    assert "MAMBA_KEEP_CUDA_BUILD=TRUE pip install" in reason
    assert "mamba_ssm" not in list_backends()
    mamba_ssm._import_failure.cache_clear()
    monkeypatch.setattr(interface, "selective_scan_cuda", types.ModuleType("selective_scan_cuda"))
    assert mamba_ssm.unavailable_reason() is None


def test_named_without_a_gpu_it_says_what_else_runs(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    u = torch.ones(1, 1, 3)
    with pytest.raises(
        ValueError, match="backend: 'mamba_ssm' cannot run .*: it needs an NVIDIA GPU.*use one of: auto, "
    ):
        selective_scan(u, u, -torch.ones(1, 1), u, u, backend="mamba_ssm")


@pytest.mark.parametrize(
    ("device", "dtype", "n", "reason"),
    [
        ("cpu", torch.float32, 16, "it takes CUDA tensors, u is on cpu"),
        ("cuda", torch.float64, 16, "it takes float16, bfloat16 or float32, u is torch.float64"),
        ("cuda", torch.float32, 257, "its states are at most 256 numbers, A has n = 257"),
        ("cuda", torch.float32, 256, None),
    ],
)
def test_inputs_it_takes(device, dtype, n, reason):
    u = types.SimpleNamespace(device=torch.device(device), dtype=dtype)
    assert mamba_ssm.unsupported_reason(u, u, torch.empty(1, n)) == reason
