import threading

import pytest
import torch
from torch import nn

from mhsvm.models import create_model
from mhsvm.training.image_parts import forward_in_parts

pytestmark = pytest.mark.usefixtures("_two_threads")

SMALL = {"channels": (4, 4, 8, 8, 12, 16), "branches": 2, "d_state": 4}


class Toy(nn.Module):
    """A convolution, a parameter that is not used, a frozen one, and a record of the batches."""

    has_independent_images = True

    def __init__(self, *layers):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 2, 3), *layers)
        self.unused = nn.Parameter(torch.ones(2))
        self.frozen = nn.Parameter(torch.ones(()), requires_grad=False)
        self.seen = []

    def forward(self, inputs):
        self.seen.append((len(inputs), threading.get_ident(), torch.get_num_threads()))
        return self.layers(inputs) * self.frozen


def images(number, size=8):
    return torch.rand(number, 3, size, size, generator=torch.Generator().manual_seed(0))


def gradients(model, inputs, forward):
    model.zero_grad()
    logits = forward(model, inputs)
    # not the sum of a loss of each image
    (logits.sigmoid().sum() ** 2 / logits.numel()).backward()
    return logits.detach(), {name: p.grad for name, p in model.named_parameters()}


@pytest.mark.parametrize("number", [8, 9, 20])
def test_logits_and_gradients_are_those_of_the_whole_batch(number):
    torch.manual_seed(0)
    model = Toy()
    expected, expected_grads = gradients(model, images(number), lambda model, inputs: model(inputs))
    model.seen.clear()
    logits, grads = gradients(model, images(number), forward_in_parts)
    torch.testing.assert_close(logits, expected)
    assert grads["unused"] is None
    assert grads["frozen"] is None
    for name in ("layers.0.weight", "layers.0.bias"):
        torch.testing.assert_close(grads[name], expected_grads[name])
    sizes, idents, inside = zip(*model.seen, strict=True)
    assert sum(sizes) == number
    assert len(sizes) > 1
    assert threading.get_ident() not in idents
    assert set(inside) == {1}
    assert torch.get_num_threads() == 2


def test_ultralight_has_the_same_bits_every_time():
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", **SMALL).train()
    assert model.has_independent_images
    inputs = images(8, size=32)
    expected, expected_grads = gradients(model, inputs, lambda model, inputs: model(inputs))
    first, first_grads = gradients(model, inputs, forward_in_parts)
    torch.testing.assert_close(first, expected)
    largest = max(grad.abs().max().item() for grad in expected_grads.values())
    for _ in range(3):
        logits, grads = gradients(model, inputs, forward_in_parts)
        assert torch.equal(logits, first)
        for name, grad in grads.items():
            # a bias before a norm has a gradient of rounding errors alone
            torch.testing.assert_close(grad, expected_grads[name], rtol=1e-3, atol=1e-4 * largest)
            assert torch.equal(grad, first_grads[name])


def hooked():
    model = Toy()
    model.layers[0].register_forward_hook(lambda module, inputs, output: None)
    return model


def unmarked():
    model = Toy()
    model.has_independent_images = False
    return model


@pytest.mark.parametrize("make", [hooked, unmarked, lambda: Toy(nn.Dropout(0.5)), lambda: Toy(nn.BatchNorm2d(2))])
def test_other_models_take_the_whole_batch(make):
    model = make()
    forward_in_parts(model, images(8)).sum().backward()
    assert [size for size, *_ in model.seen] == [8]


@pytest.mark.parametrize(("threads", "number"), [(1, 8), (16, 8), (2, 3)])
def test_one_thread_many_threads_and_few_images(threads, number):
    torch.set_num_threads(threads)
    model = Toy()
    forward_in_parts(model, images(number))
    assert [size for size, *_ in model.seen] == [number]


def test_without_gradients_under_autocast_and_for_gradients_of_images():
    model = Toy()
    with torch.no_grad():
        forward_in_parts(model, images(8))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        forward_in_parts(model, images(8))
    inputs = images(8).requires_grad_()
    forward_in_parts(model, inputs).sum().backward()
    assert inputs.grad is not None
    assert [size for size, *_ in model.seen] == [8, 8, 8]


def test_an_error_reaches_the_caller():
    with pytest.raises(RuntimeError, match="channels"):
        forward_in_parts(Toy(), torch.rand(8, 5, 8, 8))
    assert torch.get_num_threads() == 2


class Unmixed(nn.Module):
    def __init__(self, width):
        super().__init__()

    def forward(self, x):
        return x


def test_a_mixer_of_your_own_may_be_random():
    assert not create_model("ultralight_vm_unet", **SMALL, mixer=Unmixed).has_independent_images
