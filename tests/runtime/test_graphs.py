"""Captured inference, and what of it holds without a GPU."""

import pytest
import torch
from torch import nn

import mhsvm
from mhsvm.losses import create_loss
from mhsvm.runtime.graphs import GraphedModel
from mhsvm.training.optimizers import create_optimizer
from mhsvm.training.step import TrainStep

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def make_model(device):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Dropout(0.5), nn.Conv2d(4, 1, 1)).to(device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("num", [1, 3, 4, 9])
def test_any_number_of_images_comes_out_like_the_network(num, device):
    model = make_model(device).eval()
    graphed = mhsvm.GraphedModel(model, (4, 3, 8, 6))
    images = torch.randn(num, 3, 8, 6, device=device)
    expected = model(images).detach()
    for _ in range(2):
        found = graphed(images)
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert not found.requires_grad


@pytest.mark.parametrize("device", DEVICES)
def test_weights_that_change_in_place_are_seen_and_results_are_the_caller_s(device):
    model = make_model(device)
    graphed = GraphedModel(model, (2, 3, 8, 6))
    images = torch.randn(2, 3, 8, 6, device=device)
    with torch.inference_mode():
        first = graphed(images)
    kept = first.clone()
    model.load_state_dict({name: 2 * weight for name, weight in model.state_dict().items()})
    torch.testing.assert_close(graphed(images), model(images).detach(), rtol=1e-6, atol=1e-6)
    assert torch.equal(first, kept)


@pytest.mark.parametrize("device", DEVICES)
def test_it_stays_in_evaluation_mode(device):
    graphed = GraphedModel(make_model(device), (2, 3, 8, 6)).train()
    assert not any(module.training for module in graphed.modules())
    # by somebody who trains the same network
    graphed.model.train()
    images = torch.randn(2, 3, 8, 6, device=device)
    assert torch.equal(graphed(images), graphed(images))
    assert not graphed.model.training


@pytest.mark.parametrize("shape", [(3, 8, 6), (0, 3, 8, 6)])
def test_a_shape_that_is_no_batch_is_refused(shape):
    with pytest.raises(ValueError, match=r"a graph's batch is \(b, c, h, w\), each at least 1; received"):
        GraphedModel(make_model("cpu"), shape)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (0, 3, 8, 6), (3, 8, 6)])
def test_images_of_another_size_are_refused(shape):
    graphed = GraphedModel(make_model("cpu"), (2, 3, 8, 6))
    with pytest.raises(ValueError, match=r"takes images \(n, 3, 8, 6\), n at least 1; received .* Make another"):
        graphed(torch.zeros(shape))


@pytest.mark.gpu
def test_inference_may_take_the_memory_of_a_training_s_graphs():
    images = torch.randn(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)).cuda()
    targets = (images[:, :1] > 0).float()
    losses = {}
    for infers in (False, True):
        model = make_model("cuda")
        step = TrainStep(model, create_optimizer("AdamW", model), create_loss("bce_dice"), mode="graph")
        graphed = GraphedModel(model, (4, 3, 64, 64), pool=step.pool)
        torch.cuda.manual_seed(0)
        losses[infers] = []
        for _ in range(8):
            model.train()
            losses[infers].append(step(images, targets)[0].item())
            if infers:
                found = graphed(images)
                assert not model.training
                torch.testing.assert_close(found, model(images).detach(), rtol=1e-5, atol=1e-6)
    assert losses[True] == pytest.approx(losses[False], rel=1e-6)
