"""Properties of every registered network."""

import copy

import pytest
import torch

from mhsvm.models import create_model
from tests.fixtures.networks import OWN_NETWORKS

pytestmark = pytest.mark.parametrize("name", OWN_NETWORKS)


def error(actual, expected):
    """Greatest difference, relative to the greatest logit: logits near 0 are differences of such numbers."""
    difference = actual.detach().double() - expected.detach().double()
    return float(difference.abs().max() / expected.detach().abs().max())


def test_logits_have_the_size_of_the_image(name, small_model):
    model = small_model(name, num_classes=3, in_channels=1)
    stride = model.stride
    for size in ((stride, stride), (stride, 3 * stride), (2 * stride, stride)):
        logits = model(torch.randn(2, 1, *size))
        assert logits.shape == (2, 3, *size)
        assert logits.isfinite().all()


def test_a_size_that_does_not_divide_names_the_padded_one(name, small_model):
    model = small_model(name)
    stride = model.stride
    message = f"multiples of {stride}; received {stride + 1} x {stride}. Pad or resize the image to {2 * stride} x"
    with pytest.raises(ValueError, match=message):
        model(torch.randn(1, 3, stride + 1, stride))


def test_the_published_size_has_stride_32(name):
    assert create_model(name).stride == 32


def test_all_parameters_learn(name, small_model):
    model = small_model(name).train()
    output = model(torch.randn(2, 3, 2 * model.stride, 2 * model.stride))
    # in training mode, a network with deep supervision returns several
    torch.stack([output] if torch.is_tensor(output) else output).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert parameter.grad.abs().max() > 0, key


@pytest.mark.usefixtures("_full_float32")
def test_backends_agree(name, small_model, backend, device):
    model = small_model(name, backend="reference")
    image = torch.randn(1, 3, 2 * model.stride, model.stride)
    other = small_model(name, backend=backend)
    other.load_state_dict(model.state_dict())
    expected = model.double()(image.double())
    logits = other.to(device)(image.to(device)).cpu()
    assert error(logits, expected) < 2e-5


def test_an_unknown_backend_is_refused(name, small_model):
    model = small_model(name, backend="abacus")
    with pytest.raises(ValueError, match="unknown name 'abacus'"):
        model(torch.randn(1, 3, model.stride, model.stride))


def test_bfloat16_autocast(name, small_model):
    model = small_model(name)
    image = torch.randn(2, 3, 2 * model.stride, 2 * model.stride)
    expected = model(image)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(image)
        logits.float().square().mean().backward()
    assert (logits - expected).norm() / expected.norm() < 0.1
    assert all(parameter.grad.isfinite().all() for parameter in model.parameters())


def test_float64(name, small_model):
    model = small_model(name)
    image = torch.randn(1, 3, model.stride, model.stride)
    expected = model(image)
    logits = model.double()(image.double())
    assert logits.dtype == torch.float64
    assert error(expected, logits) < 1e-5


def test_copies_and_state_dicts_are_complete(name, small_model):
    model = small_model(name)
    image = torch.randn(1, 3, model.stride, model.stride)
    expected = model(image)
    assert torch.equal(copy.deepcopy(model)(image), expected)
    torch.manual_seed(7)
    other = small_model(name)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.normal_()
    other.load_state_dict(model.state_dict())
    assert torch.equal(other(image), expected)


def test_samples_of_a_batch_do_not_mix(name, small_model):
    # in float64, because a mixed part can be small
    model = small_model(name).double()
    images = torch.randn(3, 3, model.stride, model.stride, dtype=torch.float64)
    assert error(model(images)[1:2], model(images[1:2])) < 1e-12
