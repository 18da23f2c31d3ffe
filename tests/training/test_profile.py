"""What a profile counts to which part, by a clock that the parts themselves put forward."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from mhsvm.runtime.distributed import World
from mhsvm.training import profile as training_profile
from mhsvm.training.ema import ModelAverage
from mhsvm.training.errors import NotFinite, OutOfMemory
from mhsvm.training.profile import STAGES, profile_training, stages_of_passes

PARTS = [*STAGES, "idle", "evaluation", "checkpoint"]
LOAD, FORWARD, BACKWARD, OPTIMIZER, EPOCH, EVALUATION, CHECKPOINT = (2.0**i for i in range(7))


@pytest.fixture
def set_clock(monkeypatch):
    """A function that lets each part of a job take its number of seconds, whenever it is done."""

    def install(job):
        now = [0.0]

        def takes(seconds, function):
            def timed(*args, **kwargs):
                now[0] += seconds
                return function(*args, **kwargs)

            return timed

        def lose(logits, targets, forward=job.loss.forward):
            loss = takes(FORWARD, forward)(logits, targets)
            if loss.requires_grad:
                loss.register_hook(takes(BACKWARD, lambda gradient: None))
            return loss

        monkeypatch.setattr(training_profile, "time", SimpleNamespace(perf_counter=lambda: now[0]))
        monkeypatch.setattr(job.augment, "normalize", takes(LOAD, job.augment.normalize))
        monkeypatch.setattr(job.val_augment, "normalize", takes(EVALUATION, job.val_augment.normalize))
        monkeypatch.setattr(job.loss, "forward", lose)
        monkeypatch.setattr(ModelAverage, "update", takes(OPTIMIZER, ModelAverage.update))
        for name, seconds in (("train_epoch", EPOCH), ("take_snapshot", CHECKPOINT)):
            monkeypatch.setattr(training_profile, name, takes(seconds, getattr(training_profile, name)))

    return install


@pytest.mark.parametrize(
    ("accumulation", "seconds", "steps_of_pass", "training"),
    [
        # of 10 images in batches of 4, 4 and 2 the first two are timed, or one where there is no time for more
        (1, 1e6, 2, (2 * (LOAD + FORWARD + BACKWARD + OPTIMIZER) + EPOCH) * 10 / 8),
        (2, 1e6, 1, (2 * (LOAD + FORWARD + BACKWARD) + OPTIMIZER + EPOCH) * 10 / 8),
        (1, 1e-6, 2, (LOAD + FORWARD + BACKWARD + OPTIMIZER + EPOCH) * 10 / 4),
    ],
)
def test_every_part_takes_its_own_time(accumulation, seconds, steps_of_pass, training, make_job, set_clock):
    job = make_job(ema_decay=0.9, accumulation=accumulation)
    set_clock(job)
    profile = profile_training(job, seconds=seconds)
    epochs = 8 / 10
    stages = [2 * LOAD / epochs, 2 * FORWARD / epochs, 2 * BACKWARD / epochs, steps_of_pass * OPTIMIZER / epochs]
    assert list(profile.stages.values()) == pytest.approx(stages)
    assert profile.training == pytest.approx(training)
    assert profile.idle == pytest.approx(training - sum(stages))
    # 5 images in batches of 2; one batch where there is no time for more
    assert profile.validation == pytest.approx((3 if seconds > 1 else 2.5) * (EVALUATION + FORWARD))
    assert profile.checkpoint == CHECKPOINT
    assert list(profile.parts) == PARTS
    assert sum(profile.parts.values()) == pytest.approx(profile.training + profile.validation + profile.checkpoint)
    assert (profile.num_train, profile.num_val, profile.num_steps) == (10, 5, {1: 3, 2: 2}[accumulation])


@pytest.mark.parametrize(
    "settings",
    [
        {"num_images": 3},
        {"num_images": 5, "accumulation": 4},
        {"optimizer": "Adagrad", "optimizer_arguments": {"lr": 1e-2}, "clip_norm": 1.0},
        {"precision": torch.bfloat16},
    ],
    ids=str,
)
def test_every_training_can_be_profiled(settings, make_job):
    profile = profile_training(make_job(**settings), seconds=1e-3)
    assert list(profile.parts) == PARTS
    assert all(seconds >= 0 for seconds in profile.parts.values())
    assert profile.stages["data"] > 0
    assert min(profile.training, profile.validation, profile.checkpoint) > 0
    assert profile.peak_bytes > 2**20


def test_a_stage_is_what_its_pass_takes_beyond_those_before():
    passes = {"data": 1.0, "forward": 4.0, "backward": 3.5, "optimizer": 5.0}
    assert stages_of_passes(passes) == {"data": 1.0, "forward": 3.0, "backward": 0.0, "optimizer": 1.0}


def test_one_of_several_processes_is_not_profiled(make_job):
    with pytest.raises(ValueError, match="a profile is made in one process, not in 2: start it without torchrun"):
        profile_training(replace(make_job(), world=World(size=2)))


def test_a_step_that_is_not_finite_ends_it(make_job, monkeypatch):
    job = make_job()
    monkeypatch.setattr(job.loss, "forward", lambda logits, targets: logits.sum() * float("nan"))
    with pytest.raises(NotFinite, match="a step is not finite: its loss is nan"):
        profile_training(job)


def test_out_of_memory_says_what_to_try(make_job, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    job = make_job()
    monkeypatch.setattr(job.augment, "normalize", fail)
    with pytest.raises(OutOfMemory, match="train.batch_size 2 train.accumulation 2"):
        profile_training(job)
