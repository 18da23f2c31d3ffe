import math

import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import RouteS6
from mhsvm.layers.s6 import stacked_routes
from mhsvm.ops import selective_scan
from mhsvm.routes import scan_routes


def test_initial_values():
    torch.manual_seed(0)
    scan = RouteS6(24, patterns=("C", "X"), d_state=5)
    assert scan.x_proj.shape == (2, 4, 2 + 2 * 5, 24)
    assert scan.dt_proj.shape == (2, 4, 24, 2)
    assert scan.x_proj.abs().max() <= 24**-0.5
    assert scan.x_proj.std().item() == pytest.approx((24 * 3) ** -0.5, rel=0.05)
    assert scan.dt_proj.abs().max() <= 2**-0.5
    assert scan.dt_proj.std().item() == pytest.approx((2 * 3) ** -0.5, rel=0.1)
    assert torch.equal(scan.A_log, torch.arange(1, 6).float().log().expand(2, 4, 24, 5))
    assert torch.equal(scan.D, torch.ones(2, 4, 24))


def test_initial_delta_is_log_uniform():
    torch.manual_seed(0)
    delta = F.softplus(RouteS6(500, patterns=("Z",)).dt_bias).log10()
    assert delta.min() >= -3 - 1e-4
    assert delta.max() <= -1 + 1e-4
    assert delta.mean().item() == pytest.approx(-2, abs=0.05)
    assert delta.std().item() == pytest.approx(2 / math.sqrt(12), rel=0.05)


def test_every_head_and_route_is_a_scan_of_its_own():
    torch.manual_seed(0)
    d, n, r, (h, w) = 3, 4, 2, (3, 5)
    patterns = ("S", "C", "S")
    scan = RouteS6(d, patterns=patterns, d_state=n, dt_rank=r, backend="reference").double()
    with torch.no_grad():
        scan.D.uniform_(0.5, 1.5)
        scan.A_log.add_(0.1 * torch.randn_like(scan.A_log))
    x = torch.randn(2, h, w, 3 * d, dtype=torch.float64)
    y = scan(x)
    assert y.shape == (2, 3, 4, h * w, d)
    assert y.dtype == torch.float64
    for head, pattern in enumerate(patterns):
        order, inverse = scan_routes(pattern, h, w)
        u = x[..., head * d : (head + 1) * d].flatten(1, 2).mT
        for route in range(4):
            sequence = u[:, :, order[route]]
            low_rank, B, C = (scan.x_proj[head, route] @ sequence).split([r, n, n], dim=1)
            expected = selective_scan(
                sequence,
                scan.dt_proj[head, route] @ low_rank,
                -scan.A_log[head, route].exp(),
                B,
                C,
                scan.D[head, route],
                delta_bias=scan.dt_bias[head, route],
                delta_softplus=True,
                backend="reference",
            )
            torch.testing.assert_close(y[:, head, route], expected[:, :, inverse[route]].mT)


def test_outputs_are_never_rounded_to_16_bits():
    torch.manual_seed(0)
    scan = RouteS6(8, patterns=("C", "Z"))
    x = torch.randn(1, 4, 4, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = scan(x.bfloat16())
    assert y.dtype == torch.float32
    assert not torch.equal(y, y.bfloat16().float())
    error = (y - scan(x)).norm() / scan(x).norm()
    assert 0 < error < 0.02


def test_routes_are_made_once_and_serve_training_after_inference():
    scan = RouteS6(2, patterns=("X",))
    x = torch.randn(1, 3, 7, 2)
    with torch.inference_mode():
        scan(x)
    routes = stacked_routes(("X",), 3, 7, x.device)
    assert stacked_routes(("X",), 3, 7, x.device)[0] is routes[0]
    scan(x).sum().backward()
    assert scan.D.grad.isfinite().all()
    assert not list(scan.buffers())


# torch 2.6 warns about the tables of routes
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_tracer_leaves_no_fake_routes_behind():
    scan = RouteS6(2, patterns=("S",))
    x = torch.randn(1, 6, 5, 2)
    exported = torch.export.export(scan, (x,))
    torch.testing.assert_close(exported.module()(x), scan(x))


@pytest.mark.parametrize(("patterns", "unknown"), [((), "none"), (("C", "Q"), "Q")])
def test_unknown_patterns_are_refused(patterns, unknown):
    with pytest.raises(ValueError, match="one scan pattern a head, at least one") as error:
        RouteS6(4, patterns=patterns)
    assert f"unknown: {unknown}. Known patterns: C, X, S, Z" in str(error.value)
