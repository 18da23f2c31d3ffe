"""A training that was left half-way and goes on ends with the same checkpoints, bit for bit."""

import json
import os
import signal

import pytest
import torch

from mhsvm.defaults import DEFAULTS
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.runtime.stop import StopSignal
from mhsvm.training import trainer
from mhsvm.training.checkpoint_writer import CheckpointWriter
from mhsvm.training.errors import Interrupted
from mhsvm.training.job import Progress
from mhsvm.training.optimizers import list_optimizers
from mhsvm.training.schedules import list_schedules
from mhsvm.training.trainer import train, validate
from mhsvm.training.training_state import restore


def resume(job, run) -> Progress:
    return restore(job, read_checkpoint(run.last))


@pytest.fixture
def check_resume(make_job, make_run, assert_same):
    """A function that holds a training of such settings to end alike, whether it was left after an epoch or not."""

    def check(**settings):
        straight, broken = make_run("straight"), make_run("broken")
        job = make_job(**settings)
        train(job, job.fresh_progress(), straight, StopSignal())
        job = make_job(**settings, epochs=1)
        train(job, job.fresh_progress(), broken, StopSignal())
        job = make_job(**settings)
        train(job, resume(job, broken), broken, StopSignal())
        assert_same(read_checkpoint(straight.last), read_checkpoint(broken.last))
        assert straight.metrics.read_bytes() == broken.metrics.read_bytes()

    return check


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_like_an_unbroken_one(
    num_steps, signum, make_job, make_run, signal_at_step, assert_same
):
    straight, broken = make_run("straight"), make_run("broken")
    job = make_job()
    train(job, job.fresh_progress(), straight, StopSignal())

    signal_at_step(num_steps, signum)
    job = make_job()
    with StopSignal() as stop, pytest.raises(Interrupted):
        train(job, job.fresh_progress(), broken, stop)
    assert stop.signum == signum
    done = read_checkpoint(broken.last)["training"]["progress"]
    assert (done["epoch"], done["position"]) == ((num_steps - 1) // 3, [10, 4, 8][num_steps % 3])

    torch.manual_seed(99)
    job = make_job()
    train(job, resume(job, broken), broken, StopSignal())
    assert_same(read_checkpoint(straight.last), read_checkpoint(broken.last))
    assert_same(read_checkpoint(straight.best), read_checkpoint(broken.best))
    assert straight.metrics.read_bytes() == broken.metrics.read_bytes()
    lines = [json.loads(line) for line in broken.metrics.read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert {"lr", "train_loss", "val_loss", "val_miou", "val_dsc_per_image"} <= set(lines[0])


def test_a_stop_during_validation_redoes_the_validation_only(make_job, make_run, assert_same, monkeypatch):
    straight, broken = make_run("straight"), make_run("broken")
    job = make_job()
    train(job, job.fresh_progress(), straight, StopSignal())

    original, evaluations = trainer.evaluate_model, []

    def interrupted(*args, **kwargs):
        evaluations.append(1)
        if len(evaluations) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(trainer, "evaluate_model", interrupted)
    job = make_job()
    with StopSignal() as stop, pytest.raises(Interrupted):
        train(job, job.fresh_progress(), broken, stop)
    assert read_checkpoint(broken.last)["training"]["progress"]["position"] == 10
    job = make_job()
    train(job, resume(job, broken), broken, StopSignal())
    assert_same(read_checkpoint(straight.last), read_checkpoint(broken.last))
    assert straight.metrics.read_bytes() == broken.metrics.read_bytes()


def test_an_epoch_recorded_but_not_saved_is_not_recorded_twice(make_job, make_run, monkeypatch):
    run = make_run("run")
    job = make_job()
    original, saves = CheckpointWriter.save, []

    def killed(writer, paths, content):
        saves.append(paths)
        if len(saves) == 3:
            raise SystemExit("killed between the line and the checkpoint")
        original(writer, paths, content)

    monkeypatch.setattr(CheckpointWriter, "save", killed)
    with pytest.raises(SystemExit):
        train(job, job.fresh_progress(), run, StopSignal())
    assert len(run.metrics.read_text().splitlines()) == 2
    monkeypatch.setattr(CheckpointWriter, "save", original)
    job = make_job()
    train(job, resume(job, run), run, StopSignal())
    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("name", list_optimizers())
def test_every_optimizer_resumes(name, check_resume):
    arguments = dict(DEFAULTS.optimizer[name])
    check_resume(optimizer=name, optimizer_arguments=arguments)


@pytest.mark.parametrize("name", list_schedules())
def test_every_schedule_resumes(name, check_resume):
    arguments = dict(DEFAULTS.schedule[name])
    short = {"step_size": 1, "milestones": (1, 2), "patience": 0, "T_0": 2, "T_max": 3, "warmup_epochs": 2}
    arguments |= {key: value for key, value in short.items() if key in arguments}
    check_resume(schedule=name, schedule_arguments=arguments)


@pytest.mark.parametrize("settings", [{"accumulation": 2}, {"ema_decay": 0.9}, {"clip_norm": 0.01}], ids=str)
def test_everything_else_that_steps_resumes(settings, check_resume):
    check_resume(**settings)


def test_the_average_is_validated_and_kept(make_job, make_run, assert_same):
    run, job = make_run("run"), make_job(ema_decay=0.9)
    train(job, job.fresh_progress(), run, StopSignal())
    content = read_checkpoint(run.last)
    assert_same(content["model"], dict(job.step.average.model.state_dict()))
    assert_same(content["training"]["model"], dict(job.model.state_dict()))
    assert not torch.equal(content["model"]["0.weight"], content["training"]["model"]["0.weight"])
    assert validate(job).loss == json.loads(run.metrics.read_text().splitlines()[-1])["val_loss"]
