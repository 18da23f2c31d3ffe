import math
from bisect import bisect_right

import pytest
from torch import nn
from torch.optim.lr_scheduler import LambdaLR

from mhsvm.training.optimizers import create_optimizer
from mhsvm.training.schedules import create_schedule


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


def test_an_unknown_name_lists_the_known():
    optimizer = create_optimizer("SGD", nn.Linear(1, 1), lr=0.1)
    with pytest.raises(ValueError, match="unknown schedule 'Cosine'; known: CosineAnnealingLR"):
        create_schedule("Cosine", optimizer)


@pytest.mark.parametrize("warmup_epochs", [0, 1, 20])
def test_warm_ups_keep_their_rates(warmup_epochs):
    """The rates of every epoch, as checkpoints were trained with."""
    milestones, T_max, eta_min = (15, 120, 200), 230, 1e-4
    for epoch, value in enumerate(
        rates("WarmupMultiStepLR", 250, warmup_epochs=warmup_epochs, milestones=milestones, gamma=0.3)
    ):
        rise = min(1.0, (epoch + 1) / (warmup_epochs + 1))
        assert value == pytest.approx(0.1 * rise * 0.3 ** bisect_right(milestones, epoch), rel=1e-12), epoch
    for epoch, value in enumerate(
        rates("WarmupCosineLR", 250, warmup_epochs=warmup_epochs, T_max=T_max, eta_min=eta_min)
    ):
        progress = min(1.0, (epoch - warmup_epochs) / (T_max - warmup_epochs))
        fall = eta_min + (0.1 - eta_min) * (1 + math.cos(math.pi * progress)) / 2
        expected = 0.1 * (epoch + 1) / (warmup_epochs + 1) if epoch < warmup_epochs else fall
        assert value == pytest.approx(expected, rel=1e-12), epoch


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("WarmupMultiStepLR", {"warmup_epochs": 3, "milestones": (4, 6), "gamma": 0.1}),
        ("WarmupCosineLR", {"warmup_epochs": 2, "T_max": 6, "eta_min": 0.02}),
    ],
)
def test_a_warm_up_resumes_from_the_state_that_checkpoints_hold(name, arguments):
    optimizer = create_optimizer("SGD", nn.Linear(1, 1), lr=0.1)
    schedule = create_schedule(name, optimizer, **arguments)
    assert isinstance(schedule, LambdaLR)
    # as written into checkpoints since version 0.1, after two epochs
    state = {"base_lrs": [0.1], "last_epoch": 2, "_step_count": 3, "_last_lr": [0.075], "lr_lambdas": [None]}
    schedule.load_state_dict(state)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rates(name, 4, **arguments)[3], rel=1e-12)
