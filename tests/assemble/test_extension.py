"""More epochs for a run: its config, and the learning rate in them."""

import pytest

from mhsvm.assemble.extension import extend
from mhsvm.config import load_config
from mhsvm.training.run_folder import RunFolder

RUN = RunFolder("results/run")


def extended(epochs, *settings, done=10):
    return extend(load_config(None, ["train.epochs", "20", *settings]), epochs, done=done, run=RUN)


@pytest.mark.parametrize("schedule", ["StepLR", "MultiStepLR", "ExponentialLR", "ReduceLROnPlateau"])
def test_schedules_without_an_end_go_on(schedule):
    config, notes = extended(400, "schedule.name", schedule)
    assert config.train.epochs == 400
    assert config.is_frozen()
    assert notes == ("extended from 20 to 400 epochs, 10 of them done",)


def test_a_cosine_rises_after_its_end():
    assert extended(50)[1] == ("extended from 20 to 50 epochs, 10 of them done",)
    _, (_, note) = extended(51)
    assert note.endswith(
        "T_max 50, not on the number of epochs: it is lowest after 50 and 150 epochs, and rises in between"
    )


def test_a_cosine_after_a_warm_up_stays_at_its_floor_unless_that_is_0():
    warm_up = ("schedule.name", "WarmupCosineLR")
    assert extended(250, *warm_up)[0].train.epochs == 250
    with pytest.raises(
        ValueError, match=r"T_max 250 on, so that more .*: extend it to train\.epochs 250 at most, or start"
    ):
        extended(251, *warm_up)
    _, (_, note) = extended(251, *warm_up, "schedule.WarmupCosineLR.eta_min", "1e-6")
    assert note == "the learning rate stays at schedule.WarmupCosineLR.eta_min 1e-06 after epoch 250"


def test_done_epochs_stay():
    assert extended(10)[1] == ("shortened from 20 to 10 epochs, 10 of them done",)
    with pytest.raises(ValueError, match=r"results/run has 10 epochs done: train\.epochs is at least 10 for it, not 9"):
        extended(9)
