import pytest
import torch

from mhsvm.ops import route_statistics
from mhsvm.ops.routes.route_statistics import route_statistics_reference

ROUTES_2_4_6_8 = torch.tensor([2.0, 4.0, 6.0, 8.0]).reshape(1, 1, 4, 1, 1)


def outputs_and_gradient(statistics, y):
    outputs = statistics(y)
    generator = torch.Generator().manual_seed(0)
    seeds = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype) for x in outputs]
    return *outputs, *torch.autograd.grad(outputs, y, seeds)


def test_a_case_by_hand(backend):
    total, variation = route_statistics(ROUTES_2_4_6_8, backend=backend)
    assert total.item() == 20
    assert variation.item() == pytest.approx((20 / 3) ** 0.5 / (3 + 1e-5), rel=1e-6)


# One vector of the kernels, less, more, and more than one slice of work.
@pytest.mark.usefixtures("_poisoned_memory")
@pytest.mark.parametrize(("k", "cells", "d"), [(4, 1, 16), (4, 3, 5), (2, 13, 1), (4, 700, 13), (3, 10, 24)])
def test_equal_torchs_own(relative_error, tolerance, backend, dtype, k, cells, d):
    generator = torch.Generator().manual_seed(cells)
    y = torch.randn(2, 3, k, cells, d, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()
    expected = outputs_and_gradient(route_statistics_reference, y.detach().double().requires_grad_())
    actual = outputs_and_gradient(lambda x: route_statistics(x, backend=backend), y)
    for name, tensor, expected_tensor in zip(("sum", "variation", "gradient"), actual, expected, strict=True):
        assert relative_error(tensor, expected_tensor) < tolerance[dtype], name


def test_any_layout(relative_error, backend):
    y = torch.randn(2, 5, 3, 4, 6, generator=torch.Generator().manual_seed(0)).permute(0, 2, 3, 1, 4)
    assert not y.is_contiguous()
    expected = outputs_and_gradient(route_statistics_reference, y.double().requires_grad_())
    actual = outputs_and_gradient(lambda x: route_statistics(x, backend=backend), y.requires_grad_())
    for tensor, expected_tensor in zip(actual, expected, strict=True):
        assert relative_error(tensor, expected_tensor) < 1e-6


def test_equal_routes_have_a_finite_gradient(backend):
    y = torch.full((1, 1, 4, 3, 2), 1.5, requires_grad=True)
    total, variation = route_statistics(y, backend=backend)
    assert (variation == 0).all()
    (gradient,) = torch.autograd.grad(variation.sum() + total.sum(), y)
    torch.testing.assert_close(gradient, torch.ones_like(y), rtol=0, atol=0)


def test_routes_that_share_the_minimum_share_its_gradient(relative_error, backend):
    y = torch.tensor([1.0, 1.0, 3.0, 4.0]).reshape(1, 1, 4, 1, 1).repeat(1, 1, 1, 2, 9).requires_grad_()
    expected = outputs_and_gradient(route_statistics_reference, y.detach().double().requires_grad_())
    actual = outputs_and_gradient(lambda x: route_statistics(x, backend=backend), y)
    assert relative_error(actual[2], expected[2]) < 1e-6


def test_a_common_offset_changes_nothing(backend):
    generator = torch.Generator().manual_seed(0)
    y = 1 + 1e-3 * torch.rand(2, 1, 4, 6, 3, generator=generator, dtype=torch.float64)
    _, variation = route_statistics(y.float(), backend=backend)
    _, expected = route_statistics_reference(y - 1)
    torch.testing.assert_close(variation.double(), expected, rtol=5e-3, atol=0)


def test_compiles_into_one_graph(automatic_backend):
    y = torch.randn(1, 2, 4, 5, 3, generator=torch.Generator().manual_seed(0), requires_grad=True)

    def scan(y):
        total, variation = route_statistics(y, backend=automatic_backend)
        return (total * variation).sum()

    (expected,) = torch.autograd.grad(scan(y), y)
    (actual,) = torch.autograd.grad(torch.compile(scan, backend="aot_eager", fullgraph=True)(y), y)
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("shape", [(4, 6, 3), (1, 2, 1, 6, 3)])
def test_bad_shapes(shape):
    with pytest.raises(ValueError, match=r"y must be \(b, m, k, l, d\) with at least two routes, got"):
        route_statistics(torch.ones(shape))
