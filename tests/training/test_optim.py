import pytest
import torch
from torch import nn

from mhsvm.training.optim import create_optimizer, create_schedule


def rates(schedule_name, epochs, **arguments):
    optimizer = create_optimizer("SGD", nn.Linear(1, 1), lr=0.1)
    schedule = create_schedule(schedule_name, optimizer, **arguments)
    values = []
    for _ in range(epochs):
        values.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return values


def test_the_published_cosine_climbs_again_after_its_period():
    values = rates("CosineAnnealingLR", 101, T_max=50, eta_min=1e-5)
    assert values[50] == pytest.approx(1e-5)
    assert values[100] == pytest.approx(0.1)
    assert values[75] == pytest.approx((0.1 + 1e-5) / 2)


def test_warm_up_then_milestones():
    values = rates("WarmupMultiStepLR", 7, warmup_epochs=3, milestones=(4, 6), gamma=0.1)
    assert values == pytest.approx([0.025, 0.05, 0.075, 0.1, 0.01, 0.01, 0.001])


def test_warm_up_then_cosine_to_the_floor():
    values = rates("WarmupCosineLR", 9, warmup_epochs=2, T_max=6, eta_min=0.02)
    assert values[:3] == pytest.approx([0.1 / 3, 0.2 / 3, 0.1])
    assert values[4] == pytest.approx(0.06)
    assert values[6:] == pytest.approx([0.02] * 3)


def test_unknown_names_list_the_known():
    with pytest.raises(ValueError, match="unknown optimizer 'adam'; known: ASGD, Adadelta"):
        create_optimizer("adam", nn.Linear(1, 1))
    optimizer = create_optimizer("SGD", nn.Linear(1, 1), lr=0.1)
    with pytest.raises(ValueError, match="unknown schedule 'Cosine'; known: CosineAnnealingLR"):
        create_schedule("Cosine", optimizer)


def test_weight_decay_can_spare_the_scans_parameters():
    model = nn.Module()
    model.A_log, model.D, model.weight = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = create_optimizer("AdamW", model, decay_all=False, lr=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in (model.A_log, model.D, model.weight)] == [0.0, 0.0, 0.5]
    everything = create_optimizer("AdamW", model, lr=0.1, weight_decay=0.5)
    assert [len(group["params"]) for group in everything.param_groups] == [3]
