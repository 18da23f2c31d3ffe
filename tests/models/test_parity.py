"""Parity with the published networks, tensor by tensor, within the bounds of the fixtures' specification."""

import pytest
import torch
import torch.nn.functional as F

from mhsvm.layers import mamba, s6
from mhsvm.models import create_model, load_weights
from mhsvm.models.recognition import identify, recognize

CPU = torch.device("cpu")
OUTPUT_BOUND = 1e-4
GRADIENT_BOUND = 2e-3

FIXTURES = ("mhs_vm_h4_64x64", "vm_unet_64x64", "ultralight_64x64")


def relative_error(value, expected):
    return ((value - expected).norm() / expected.norm()).item()


def errors_against(fixture, backend, device=CPU):
    """Relative error of the output and of each gradient."""
    name, arguments = recognize(fixture["state_dict"])
    assert name == fixture["meta"]["kind"]
    if name == "mhs_vm":
        arguments["gate_threshold"] = fixture["meta"]["gate_threshold"]
    model = create_model(name, backend=backend, **arguments).eval()
    load_weights(model, fixture["state_dict"])
    image = fixture["input"].to(device, copy=True).requires_grad_()
    output = torch.sigmoid(model.to(device)(image))
    (output * fixture["grad_seed"].to(device)).sum().backward()

    found = identify(fixture["grads"])
    sources, gradients = found.format.sources(model), found.format.prepare(model, found.state)
    errors = {
        key: relative_error(parameter.grad.cpu(), sources[key].take_from(gradients))
        for key, parameter in model.named_parameters()
    }
    used = {key for own in errors for key in sources[own].keys}
    assert used == set(gradients)
    return relative_error(output.cpu(), fixture["output"]), {
        **errors,
        "input": relative_error(image.grad.cpu(), fixture["input_grad"]),
    }


@pytest.mark.usefixtures("_full_float32")
@pytest.mark.parametrize("file", FIXTURES)
def test_output_and_every_gradient(shared, file, backend, device):
    fixture = torch.load(shared / "fixtures" / f"{file}.pt", weights_only=True)
    output_error, gradient_errors = errors_against(fixture, backend, device)
    assert output_error < OUTPUT_BOUND
    assert len(gradient_errors) > 50
    assert {key: error for key, error in gradient_errors.items() if not error < GRADIENT_BOUND} == {}


def stateless_route_scan(u, x_proj, dt_proj, dt_bias, A, D, order, inverse, *, backend):
    n = A.shape[3]
    low_rank, B, C = torch.einsum("blmd,mkcd->blmkc", u, x_proj).split([dt_proj.shape[3], n, n], dim=-1)
    delta = F.softplus(torch.einsum("blmkr,mkdr->blmkd", low_rank, dt_proj) + dt_bias)
    # A is without decay; it is included for its gradient.
    y = (D + delta * (B * C).sum(-1, keepdim=True) + 0 * A.sum(-1)) * u.unsqueeze(3)
    return y.permute(0, 2, 3, 1, 4)


def stateless_sequence_scan(u, delta, A, B, C, D, *, z, delta_bias, delta_softplus, backend):
    delta = F.softplus(delta + delta_bias)
    return (D + 0 * A.sum(-1) + delta * (B * C).sum(-1)) * u * F.silu(z)


@pytest.mark.parametrize("file", FIXTURES)
def test_leaving_out_the_state_fails(shared, file, monkeypatch):
    monkeypatch.setattr(s6, "route_scan", stateless_route_scan)
    monkeypatch.setattr(mamba, "sequence_scan", stateless_sequence_scan)
    fixture = torch.load(shared / "fixtures" / f"{file}.pt", weights_only=True)
    output_error, gradient_errors = errors_against(fixture, "reference")
    assert output_error > 10 * OUTPUT_BOUND
    assert all(error > GRADIENT_BOUND for error in gradient_errors.values())
    assert max(gradient_errors.values()) > 100 * GRADIENT_BOUND


def test_walking_raster_routes_fails(shared, monkeypatch):
    stacked_routes = s6.stacked_routes
    monkeypatch.setattr(
        s6, "stacked_routes", lambda patterns, h, w, device: stacked_routes(("Z",) * len(patterns), h, w, device)
    )
    fixture = torch.load(shared / "fixtures" / "mhs_vm_h4_64x64.pt", weights_only=True)
    output_error, gradient_errors = errors_against(fixture, "reference")
    assert output_error > 0.1
    assert max(gradient_errors.values()) > 100 * GRADIENT_BOUND
