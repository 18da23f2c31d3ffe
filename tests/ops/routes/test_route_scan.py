import pytest
import torch
import torch.nn.functional as F

from mhsvm.ops import route_scan
from mhsvm.ops.scan import reference
from mhsvm.routes import scan_routes

H, W, PATTERNS = 3, 5, ("C", "S", "X")


def leaf(*shape, seed, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


@pytest.fixture
def routes():
    orders, inverses = zip(*(scan_routes(pattern, H, W) for pattern in PATTERNS), strict=True)
    return {"order": torch.stack(orders), "inverse": torch.stack(inverses)}


@pytest.fixture
def tensors():
    b, m, k, d, n, r = 2, len(PATTERNS), 4, 4, 3, 2
    return {
        "u": leaf(b, H * W, m, d, seed=0),
        "x_proj": leaf(m, k, r + 2 * n, d, seed=1),
        "delta_proj": leaf(m, k, d, r, seed=2),
        "delta_bias": leaf(m, k, d, seed=3),
        "A": (-leaf(m, k, d, n, seed=4).detach().exp()).requires_grad_(),
        "D": leaf(m, k, d, seed=5),
    }


def scan_each_route(u, x_proj, delta_proj, delta_bias, A, D, order, inverse):
    """`route_scan` by one scan for each route of a head."""
    heads = []
    for i in range(order.shape[0]):
        routes = []
        for j in range(order.shape[1]):
            r, n = delta_proj.shape[-1], A.shape[-1]
            cells = u[:, order[i, j].long(), i]
            low_rank, B, C = F.linear(cells, x_proj[i, j]).split((r, n, n), dim=-1)
            y = reference.selective_scan(
                cells,
                F.linear(low_rank, delta_proj[i, j]),
                A[i, j],
                B[:, :, None],
                C[:, :, None],
                D[i, j],
                delta_bias=delta_bias[i, j],
                delta_softplus=True,
            )
            routes.append(y[:, inverse[i, j].long()])
        heads.append(torch.stack(routes, dim=1))
    return torch.stack(heads, dim=1)


@pytest.mark.parametrize("index_type", [torch.int32, torch.int64])
def test_equals_a_loop_over_routes(tensors, routes, relative_error, tolerance, backend, dtype, index_type):
    inputs = {name: x.detach().to(dtype).requires_grad_() for name, x in tensors.items()}
    exact = {name: x.detach().double().requires_grad_() for name, x in inputs.items()}
    expected = scan_each_route(**exact, **routes)
    routes = {name: index.to(index_type) for name, index in routes.items()}
    actual = route_scan(**inputs, **routes, backend=backend)
    assert actual.shape == (2, len(PATTERNS), 4, H * W, 4)
    assert relative_error(actual, expected) < tolerance[dtype]
    grad_output = leaf(*expected.shape, seed=6).detach()
    gradients = torch.autograd.grad(actual, tuple(inputs.values()), grad_output.to(dtype))
    expected_gradients = torch.autograd.grad(expected, tuple(exact.values()), grad_output.to(dtype).double())
    for name, gradient, expected_gradient in zip(inputs, gradients, expected_gradients, strict=True):
        assert relative_error(gradient, expected_gradient) < tolerance[dtype], name


def test_gradients(tensors, routes):
    def scan(*leaves):
        return route_scan(*leaves, **routes)

    assert torch.autograd.gradcheck(scan, tuple(tensors.values()), fast_mode=True)


def test_compiles_into_one_graph(tensors, routes, relative_error, automatic_backend):
    inputs = {name: x.detach().float().requires_grad_() for name, x in tensors.items()}

    def scan(u, **others):
        return route_scan(u * 2, **others, **routes, backend=automatic_backend).flatten(1).sin()

    expected = scan(**inputs)
    actual = torch.compile(scan, backend="aot_eager", fullgraph=True)(**inputs)
    torch.testing.assert_close(actual, expected)
    leaves = tuple(inputs.values())
    gradients = torch.autograd.grad(actual.sum(), leaves)
    for gradient, of_eager in zip(gradients, torch.autograd.grad(expected.sum(), leaves), strict=True):
        assert relative_error(gradient, of_eager) < 1e-6


def test_outputs_are_never_rounded_to_16_bits(tensors, routes, relative_error):
    tensors = {name: x.detach().float() for name, x in tensors.items()}
    tensors["u"] = tensors["u"].bfloat16()
    expected = route_scan(**{name: x.double() for name, x in tensors.items()}, **routes)
    actual = route_scan(**tensors, **routes)
    assert actual.dtype == torch.float32
    assert relative_error(actual, expected) < 1e-6
    with torch.autocast("cpu", torch.bfloat16):
        actual = route_scan(**tensors, **routes)
    assert actual.dtype == torch.float32
    assert not torch.equal(actual, actual.bfloat16().float())
    # only the projections are rounded
    assert 1e-4 < relative_error(actual, expected) < 2e-2


def test_16_bit_parameters(tensors, routes, relative_error, backend):
    half = {name: x.detach().bfloat16() for name, x in tensors.items()}
    expected = route_scan(**{name: x.double() for name, x in half.items()}, **routes)
    actual = route_scan(**half, **routes, backend=backend)
    assert actual.dtype == torch.float32
    assert relative_error(actual, expected) < 2e-2


@pytest.mark.parametrize("in_16_bits", [("u", "x_proj"), ("delta_proj",), ("x_proj",)])
def test_types_may_differ(tensors, routes, relative_error, backend, in_16_bits):
    tensors = {
        name: x.detach().to(torch.bfloat16 if name in in_16_bits else torch.float32) for name, x in tensors.items()
    }
    expected = route_scan(**{name: x.double() for name, x in tensors.items()}, **routes)
    assert relative_error(route_scan(**tensors, **routes, backend=backend), expected) < 2e-2


@pytest.mark.interpreter
@pytest.mark.parametrize("in_16_bits", [("u", "x_proj"), ("delta_proj",), ("x_proj",)])
def test_types_may_differ_in_kernels(tensors, routes, relative_error, kernel_device, in_16_bits):
    tensors = {
        name: x.detach().to(torch.bfloat16 if name in in_16_bits else torch.float32) for name, x in tensors.items()
    }
    expected = route_scan(**{name: x.double() for name, x in tensors.items()}, **routes)
    moved = {name: x.to(kernel_device) for name, x in {**tensors, **routes}.items()}
    assert relative_error(route_scan(**moved, backend="triton").cpu(), expected) < 2e-2


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("u", torch.ones(2, 15, 12), r"u must be \(b, l, m, d\), got \(2, 15, 12\)"),
        ("u", torch.ones(2, 15, 3, 4, dtype=torch.int64), "u must be float16, .* got torch.int64: convert it first"),
        ("D", torch.ones(3, 4, 4, device="meta"), "D is on meta and u on cpu: move them to one device"),
        ("A", torch.ones(12, 4, 3), r"A must be \(m, k, d, n\), got \(12, 4, 3\)"),
        ("delta_proj", torch.ones(12, 8), r"delta_proj must be \(m, k, d, r\), got \(12, 8\)"),
        ("x_proj", torch.ones(3, 4, 9, 4), r"x_proj must be .* = \(3, 4, 8, 4\) .* got \(3, 4, 9, 4\)"),
        ("delta_bias", torch.ones(3, 4), r"delta_bias must be \(m, k, d\) = \(3, 4, 4\) .* got \(3, 4\)"),
        ("D", torch.ones(48), r"D must be \(m, k, d\) = \(3, 4, 4\) .* got \(48,\)"),
        ("order", torch.ones(3, 4, 16, dtype=torch.int64), r"order must be .* \(3, 4, 15\) .* got \(3, 4, 16\)"),
        ("order", torch.ones(3, 4, 15), "order must be int32 or int64, got torch.float32"),
        ("inverse", torch.ones(3, 4, 15, dtype=torch.int16), "inverse must be int32 or int64, got torch.int16"),
        ("inverse", torch.ones(3, 4, 15, dtype=torch.int64, device="meta"), "inverse is on meta and u on cpu"),
    ],
)
def test_bad_input(tensors, routes, name, value, message):
    with pytest.raises(ValueError, match=message):
        route_scan(**tensors | routes | {name: value})
