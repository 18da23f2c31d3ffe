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
        "x_dbl": leaf(b, H * W, m, k, r + 2 * n, seed=1),
        "dt_weight": leaf(m, k, d, r, seed=2),
        "dt_bias": leaf(m, k, d, seed=3),
        "A": (-leaf(m, k, d, n, seed=4).detach().exp()).requires_grad_(),
        "D": leaf(m, k, d, seed=5),
    }


def scan_each_route(u, x_dbl, dt_weight, dt_bias, A, D, order, inverse):
    """The same, a route of a head at a time."""
    heads = []
    for i in range(order.shape[0]):
        routes = []
        for j in range(order.shape[1]):
            cells = order[i, j].long()
            r, n = dt_weight.shape[-1], A.shape[-1]
            step, B, C = x_dbl[:, cells, i, j].split((r, n, n), dim=-1)
            y = reference.selective_scan(
                u[:, cells, i].mT,
                F.linear(step, dt_weight[i, j]).mT,
                A[i, j],
                B.mT[:, None],
                C.mT[:, None],
                D[i, j],
                delta_bias=dt_bias[i, j],
                delta_softplus=True,
            )
            routes.append(y.mT[:, inverse[i, j].long()])
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
    seed = leaf(*expected.shape, seed=6).detach()
    gradients = torch.autograd.grad(actual, tuple(inputs.values()), seed.to(dtype))
    expected_gradients = torch.autograd.grad(expected, tuple(exact.values()), seed.to(dtype).double())
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
    half = {name: x.detach().bfloat16() for name, x in tensors.items()}
    expected = route_scan(**{name: x.double() for name, x in half.items()}, **routes)
    plain = route_scan(**half, **routes)
    with torch.autocast("cpu", torch.bfloat16):
        under_autocast = route_scan(**half, **routes)
    for actual in (plain, under_autocast):
        assert actual.dtype == torch.float32
        assert relative_error(actual, expected) < 1e-6


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("u", torch.ones(2, 15, 12), r"u must be \(b, l, m, d\), got \(2, 15, 12\)"),
        ("u", torch.ones(2, 15, 3, 4, dtype=torch.int64), "u must be float16, .* got torch.int64: convert it first"),
        ("D", torch.ones(3, 4, 4, device="meta"), "D is on meta and u on cpu: move them to one device"),
        ("A", torch.ones(12, 4, 3), r"A must be \(m, k, d, n\), got \(12, 4, 3\)"),
        ("dt_weight", torch.ones(12, 8), r"dt_weight must be \(m, k, d, r\), got \(12, 8\)"),
        ("x_dbl", torch.ones(2, 15, 3, 4, 9), r"x_dbl must be .* = \(2, 15, 3, 4, 8\) .* got \(2, 15, 3, 4, 9\)"),
        ("dt_bias", torch.ones(3, 4), r"dt_bias must be \(m, k, d\) = \(3, 4, 4\) .* got \(3, 4\)"),
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
