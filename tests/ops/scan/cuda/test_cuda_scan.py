"""The CUDA scans against the reference in float64: on a GPU, and a few cases on an emulated one."""

import pytest
import torch
from torch._subclasses import FakeTensorMode

from mhsvm.ops.routes.route_scan import route_scan_reference
from mhsvm.ops.scan import reference
from mhsvm.ops.scan.cuda import cuda_launch, cuda_plan
from mhsvm.ops.scan.cuda.cuda_scan import route_scan, selective_scan
from mhsvm.ops.verify import make_route_scan_inputs
from tests.ops.scan.cuda.emulated import COMPILER, Emulator

ALL = ("D", "z", "delta_bias")
NO_GATE = ("D", "delta_bias")
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}
on_gpu = pytest.mark.gpu
emulated = pytest.mark.skipif(COMPILER is None, reason="g++ is missing")


@pytest.fixture
def _short_chunks(monkeypatch):
    """The shortest chunks, since more warps are wanted than possible."""
    for name in ("_FORWARD_WARPS", "_BACKWARD_WARPS"):
        monkeypatch.setattr(cuda_plan, name, 10**6)
    for name in ("_MIN_CHUNK_STEPS", "_MIN_SHORT_CHUNK_STEPS"):
        monkeypatch.setattr(cuda_plan, name, 8)


@pytest.fixture
def emulator(tmp_path, monkeypatch) -> Emulator:
    emulator = Emulator(tmp_path)
    monkeypatch.setattr(cuda_launch, "launch", emulator.launch)
    return emulator


@pytest.fixture
def check(sequence_inputs, outputs_and_gradients, relative_error):
    """Compare outputs, last states and gradients; return them."""

    def compare(*, device="cuda", dtype=torch.float32, change=lambda x: x, softplus=True, **sizes):
        inputs = {k: change(x.detach()).to(device) for k, x in sequence_inputs(dtype=dtype, **sizes).items()}
        exact = {k: x.double().requires_grad_() for k, x in inputs.items()}
        inputs = {k: x.requires_grad_() for k, x in inputs.items()}
        expected = outputs_and_gradients(reference.selective_scan, exact, delta_softplus=softplus)
        actual = outputs_and_gradients(selective_scan, inputs, delta_softplus=softplus)
        again = outputs_and_gradients(selective_scan, inputs, delta_softplus=softplus)
        for name, tensor in expected.items():
            assert relative_error(actual[name], tensor) < BOUNDS[dtype], name
            assert torch.equal(actual[name], again[name]), name
        for name, x in inputs.items():
            assert actual[f"gradient of {name}"].dtype == x.dtype
        return actual

    return compare


@emulated
@pytest.mark.usefixtures("_poisoned_memory", "_short_chunks")
def test_emulated_chunks(check, emulator):
    """12 of 16 states and channels, in chunks. Neither early copies nor another order of lanes change a bit."""
    sizes = {"device": "cpu", "b": 1, "d": 12, "n": 12, "groups": 1, "length": 45}
    expected = check(**sizes)
    assert [x.function for x in emulator.launched[:5]] == [
        f"scan_{x}" for x in ["chunk", "forward", "chunk", "backward", "sum_rows"]
    ]
    emulator.late, emulator.falling = False, True
    for name, tensor in check(**sizes).items():
        assert torch.equal(tensor, expected[name]), name


@emulated
@pytest.mark.usefixtures("_poisoned_memory")
def test_emulated_routes(emulator):
    check_routes(torch.bfloat16, "cpu")


@on_gpu
@pytest.mark.parametrize("length", [1, 63, 100, 451, 1000])
@pytest.mark.parametrize("short_chunks", [False, True])
@pytest.mark.usefixtures("_poisoned_memory")
def test_lengths(check, request, length, short_chunks):
    if short_chunks:
        request.getfixturevalue("_short_chunks")
    check(b=2, d=24, n=16, groups=2, length=length)
    check(b=3, d=12, n=16, groups=1, length=length, optional=NO_GATE)


@on_gpu
@pytest.mark.parametrize("n", range(1, 65))
@pytest.mark.usefixtures("_poisoned_memory")
def test_numbers_of_states(check, n):
    check(b=2, d=10, n=n, groups=1, length=33, optional=ALL if n % 2 else ("D",))


@on_gpu
@pytest.mark.parametrize("e", [1, 8, 16, 24, 32, 48, 80, 96, 100, 192, 200])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("b", [1, 600])
@pytest.mark.usefixtures("_poisoned_memory")
def test_channels_of_a_group(check, e, dtype, b):
    """Few warps, and so many that a group takes fewer of them."""
    check(b=b, d=2 * e, n=16, groups=2, length=20, dtype=dtype, optional=NO_GATE)


@on_gpu
@pytest.mark.parametrize("optional", [(), ("D",), ("z",), ("delta_bias",), NO_GATE, ALL])
@pytest.mark.parametrize("softplus", [False, True])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.usefixtures("_poisoned_memory")
def test_options(check, optional, softplus, dtype):
    check(b=2, d=20, n=16, groups=2, length=63, optional=optional, softplus=softplus, dtype=dtype)


def scatter(x):
    return x.mT.contiguous().mT if x.dim() > 1 else x.repeat_interleave(2)[::2]


def shift(x):
    """The same numbers, one number after an aligned address."""
    return torch.empty(x.numel() + 1, dtype=x.dtype)[1:].copy_(x.flatten()).view(x.shape)


@on_gpu
@pytest.mark.parametrize("change", [scatter, shift])
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.usefixtures("_poisoned_memory")
def test_memory_orders(check, change, dtype):
    check(b=2, d=16, n=16, groups=2, length=63, change=change, dtype=dtype)


@on_gpu
@pytest.mark.usefixtures("_poisoned_memory")
def test_large_scans(check):
    check(b=40, d=384, n=16, groups=16, length=50, optional=NO_GATE)
    check(b=1, d=96, n=16, groups=1, length=3000, optional=NO_GATE)


def check_routes(dtype, device):
    inputs, routes = make_route_scan_inputs(dtype=dtype, device=torch.device(device))
    exact = {name: x.double().requires_grad_() for name, x in inputs.items()}
    leaves = {name: x.requires_grad_() for name, x in inputs.items()}
    expected = route_scan_reference(**exact, **routes, scan=reference.selective_scan)
    actual = route_scan(**leaves, **routes)
    assert actual.dtype == torch.float32
    grad_output = torch.randn(actual.shape, generator=torch.Generator().manual_seed(0)).to(device)
    gradients = torch.autograd.grad(actual, tuple(leaves.values()), grad_output, retain_graph=True)
    again = torch.autograd.grad(actual, tuple(leaves.values()), grad_output)
    references = torch.autograd.grad(expected, tuple(exact.values()), grad_output.double())
    pairs = [("y", actual, expected), *zip(inputs, gradients, references, strict=True)]
    for name, x, ref in pairs:
        assert (x.double() - ref).norm() < BOUNDS[dtype] * ref.norm(), name
    assert all(torch.equal(x, y) for x, y in zip(gradients, again, strict=True))


@on_gpu
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("short_chunks", [False, True])
@pytest.mark.usefixtures("_poisoned_memory")
def test_routes(request, dtype, short_chunks):
    if short_chunks:
        request.getfixturevalue("_short_chunks")
    check_routes(dtype, "cuda")


@on_gpu
def test_captured_on_another_stream(sequence_inputs):
    inputs = {k: x.detach().cuda() for k, x in sequence_inputs(d=24, n=16, length=100, dtype=torch.float32).items()}
    expected = selective_scan(**inputs)
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.graph(graph, stream=stream):
        captured = selective_scan(**inputs)
    inputs["u"].mul_(2)
    graph.replay()
    torch.cuda.synchronize()
    assert not torch.equal(captured, expected)
    assert torch.equal(captured, selective_scan(**inputs))


@on_gpu
def test_a_second_gradient_is_refused(sequence_inputs):
    inputs = {k: x.detach().cuda().requires_grad_() for k, x in sequence_inputs(n=16, dtype=torch.float32).items()}
    (gradient,) = torch.autograd.grad(selective_scan(**inputs).sum(), inputs["u"], create_graph=True)
    with pytest.raises(RuntimeError, match="does not require grad"):
        gradient.sum().backward()


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_compiles_into_one_graph(sequence_inputs, relative_error, dtype):
    inputs = {k: x.detach().cuda().requires_grad_() for k, x in sequence_inputs(n=16, dtype=dtype).items()}

    def run(scan):
        y = scan(**inputs, delta_softplus=True)
        return [y, *torch.autograd.grad(y, tuple(inputs.values()), torch.ones_like(y))]

    compiled = torch.compile(selective_scan, backend="aot_eager", fullgraph=True)
    for actual, expected in zip(run(compiled), run(selective_scan), strict=True):
        assert relative_error(actual, expected) < 1e-6


def memory_orders(tensors):
    # The stride of an axis with one element has no meaning.
    return [(x.dtype, [(n, s) for n, s in zip(x.shape, x.stride(), strict=True) if n > 1]) for x in tensors]


@pytest.mark.parametrize("m", [1, 2])
@pytest.mark.parametrize(("d", "n", "dtype"), [(3, 3, torch.float32), (30, 40, torch.bfloat16)])
def test_torch_compile_is_told_the_memory_order(monkeypatch, m, d, n, dtype):
    """The shapes of the fake implementations; nothing is launched."""
    monkeypatch.setattr(cuda_launch, "launch", lambda *arguments: None)
    b, length, k = 2, 5, 2
    order = torch.arange(length).expand(m, k, -1).contiguous()
    u, x = torch.randn(b, length, m, d), torch.randn(m, b, length, k, d + 2 * n).permute(1, 2, 0, 3, 4)
    bias, A, D = torch.randn(m, k, d), -torch.rand(m, k, d, n), torch.randn(m, k, d)
    B = torch.randn(b, length, m, n)
    sequence, A2 = torch.randn(b, length, m * d), -torch.rand(n, m * d).T
    u, x, B, sequence = (t.to(dtype) for t in (u, x, B, sequence))
    ops = torch.ops.mhsvm

    def run(u, x, bias, A, D, order, B, sequence, A2):
        y, saved = ops.cuda_route_scan(u, x, bias, A, D, order, True)
        of_routes = ops.cuda_route_scan_backward(y, saved, u, x, bias, A, D, order)
        options = (None, sequence, None, True)
        y2, last, saved2 = ops.cuda_selective_scan(sequence, sequence, A2, B, B, *options, True)
        others = ops.cuda_selective_scan_backward(y2, last, saved2, sequence, sequence, A2, B, B, *options)
        return [y, saved, *of_routes, y2, last, saved2, *others]

    inputs = [u, x, bias, A, D, order, B, sequence, A2]
    with FakeTensorMode() as mode:
        announced = run(*(mode.from_tensor(t) for t in inputs))
    assert memory_orders(run(*inputs)) == memory_orders(announced)
