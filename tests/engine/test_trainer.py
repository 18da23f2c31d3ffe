import json
import os
import signal

import pytest
import torch

from mhsvm.config import DEFAULTS
from mhsvm.data.split_file import Split
from mhsvm.engine import trainer
from mhsvm.engine.optim import list_optimizers, list_schedules
from mhsvm.engine.run_folder import RunFolder
from mhsvm.engine.step import TrainStep
from mhsvm.engine.stop import StopSignal
from mhsvm.engine.trainer import Interrupted, Progress, TrainingError, restore, train, train_epoch, validate
from mhsvm.models.published import read_checkpoint


@pytest.fixture
def make_run(tmp_path):
    def make(name: str) -> RunFolder:
        run = RunFolder(tmp_path / name)
        run.create(config="", split=Split("made", {"a": "train"}))
        return run

    return make


def start(job) -> Progress:
    return Progress(data_state=job.generator.get_state())


def resume(job, run) -> Progress:
    return restore(job, read_checkpoint(run.last))


def assert_same(first, second, where="checkpoint"):
    """The same tree of tensors and plain values, bit for bit."""
    assert type(first) is type(second), where
    if isinstance(first, torch.Tensor):
        assert torch.equal(first, second), where
    elif isinstance(first, dict):
        assert first.keys() == second.keys(), where
        for key in first:
            assert_same(first[key], second[key], f"{where}[{key!r}]")
    elif isinstance(first, list):
        assert len(first) == len(second), where
        for index, items in enumerate(zip(first, second, strict=True)):
            assert_same(*items, f"{where}[{index}]")
    else:
        assert first == second, where


def signal_after(monkeypatch, num_steps: int, signum: int = signal.SIGINT) -> None:
    """Let the process get a signal while it takes its `num_steps`-th training step from now."""
    original, taken = TrainStep.__call__, []

    def counting(*args, **kwargs):
        taken.append(1)
        if len(taken) == num_steps:
            os.kill(os.getpid(), signum)
        return original(*args, **kwargs)

    monkeypatch.setattr(TrainStep, "__call__", counting)


@pytest.mark.parametrize("num_steps", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_ends_like_a_straight_one(num_steps, signum, make_job, make_run, monkeypatch):
    straight, broken = make_run("straight"), make_run("broken")
    job = make_job()
    train(job, start(job), straight, StopSignal())

    signal_after(monkeypatch, num_steps, signum)
    job = make_job()
    with StopSignal() as stop, pytest.raises(Interrupted):
        train(job, start(job), broken, stop)
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


def test_a_stop_during_validation_redoes_the_validation_only(make_job, make_run, monkeypatch):
    straight, broken = make_run("straight"), make_run("broken")
    job = make_job()
    train(job, start(job), straight, StopSignal())

    original, evaluations = trainer.evaluate, []

    def interrupted(*args, **kwargs):
        evaluations.append(1)
        if len(evaluations) == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return original(*args, **kwargs)

    monkeypatch.setattr(trainer, "evaluate", interrupted)
    job = make_job()
    with StopSignal() as stop, pytest.raises(Interrupted):
        train(job, start(job), broken, stop)
    assert read_checkpoint(broken.last)["training"]["progress"]["position"] == 10
    job = make_job()
    train(job, resume(job, broken), broken, StopSignal())
    assert_same(read_checkpoint(straight.last), read_checkpoint(broken.last))
    assert straight.metrics.read_bytes() == broken.metrics.read_bytes()


def test_an_epoch_recorded_but_not_saved_is_not_recorded_twice(make_job, make_run, monkeypatch):
    run = make_run("run")
    job = make_job()
    original, saves = trainer.save_checkpoint, []

    def killed(path, content):
        saves.append(path)
        if len(saves) == 4:
            raise SystemExit("killed between the line and the checkpoint")
        original(path, content)

    monkeypatch.setattr(trainer, "save_checkpoint", killed)
    with pytest.raises(SystemExit):
        train(job, start(job), run, StopSignal())
    assert len(run.metrics.read_text().splitlines()) == 2
    monkeypatch.setattr(trainer, "save_checkpoint", original)
    job = make_job()
    train(job, resume(job, run), run, StopSignal())
    assert [json.loads(line)["epoch"] for line in run.metrics.read_text().splitlines()] == [1, 2, 3]


@pytest.mark.parametrize("name", list_optimizers())
def test_every_optimizer_resumes(name, make_job, make_run):
    arguments = dict(DEFAULTS.optimizer[name])
    check_resume(make_job, make_run, optimizer=name, optimizer_arguments=arguments)


@pytest.mark.parametrize("name", list_schedules())
def test_every_schedule_resumes(name, make_job, make_run):
    arguments = dict(DEFAULTS.schedule[name])
    short = {"step_size": 1, "milestones": (1, 2), "patience": 0, "T_0": 2, "T_max": 3, "warmup_epochs": 2}
    arguments |= {key: value for key, value in short.items() if key in arguments}
    check_resume(make_job, make_run, schedule=name, schedule_arguments=arguments)


@pytest.mark.parametrize("settings", [{"accumulation": 2}, {"ema_decay": 0.9}, {"clip_norm": 0.01}], ids=str)
def test_everything_else_that_steps_resumes(settings, make_job, make_run):
    check_resume(make_job, make_run, **settings)


def test_the_average_is_validated_and_kept(make_job, make_run):
    run, job = make_run("run"), make_job(ema_decay=0.9)
    train(job, start(job), run, StopSignal())
    content = read_checkpoint(run.last)
    assert_same(content["model"], dict(job.step.average.model.state_dict()))
    assert_same(content["training"]["model"], dict(job.model.state_dict()))
    assert not torch.equal(content["model"]["0.weight"], content["training"]["model"]["0.weight"])
    assert validate(job).loss == json.loads(run.metrics.read_text().splitlines()[-1])["val_loss"]


def check_resume(make_job, make_run, **settings):
    straight, broken = make_run("straight"), make_run("broken")
    job = make_job(**settings)
    train(job, start(job), straight, StopSignal())
    job = make_job(**settings, epochs=1)
    train(job, start(job), broken, StopSignal())
    job = make_job(**settings)
    train(job, resume(job, broken), broken, StopSignal())
    assert_same(read_checkpoint(straight.last), read_checkpoint(broken.last))
    assert straight.metrics.read_bytes() == broken.metrics.read_bytes()


def test_accumulated_batches_step_like_one(make_job):
    weights = []
    for batch_size, accumulation in ((8, 1), (4, 2), (3, 3)):
        job = make_job(batch_size=batch_size, accumulation=accumulation, dropout=0.0, num_images=8, epochs=1)
        records = []
        train_epoch(job, start(job), records.append)
        losses = [record.loss for record in records]
        assert [record.num_images for record in records] == [8]
        weights.append((job.model[0].weight.detach().clone(), losses))
    for weight, losses in weights[1:]:
        torch.testing.assert_close(weight, weights[0][0], rtol=1e-4, atol=1e-6)
        assert losses == pytest.approx(weights[0][1], rel=1e-5)


def test_clipping_bounds_the_gradient(make_job):
    norms = []
    for clip_norm in (0.0, 1e-3):
        job = make_job(clip_norm=clip_norm, epochs=1, dropout=0.0)
        train_epoch(job, start(job))
        norms.append(torch.cat([p.grad.flatten() for p in job.model.parameters()]).norm().item())
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_computes_in_16_bits_and_follows_float32(make_job):
    types, losses = [], {}
    for precision in (torch.float32, torch.bfloat16):
        job = make_job(precision=precision, dropout=0.0, epochs=1)
        job.model[0].register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
        records = []
        train_epoch(job, start(job), records.append)
        losses[precision] = [record.loss for record in records]
        assert {parameter.dtype for parameter in job.model.parameters()} == {torch.float32}
    assert types == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=2e-2)
    assert losses[torch.bfloat16] != losses[torch.float32]


def test_a_non_finite_loss_names_step_images_and_checkpoint(make_job, make_run, monkeypatch):
    run, job = make_run("run"), make_job()
    original, calls = job.loss.forward, []

    def broken(logits, targets):
        calls.append(1)
        return original(logits, targets) * (float("nan") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(job.loss, "forward", broken)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    ids = ", ".join(f"image{row:02d}" for row in order[4:8].tolist())
    with pytest.raises(TrainingError) as error:
        train(job, start(job), run, StopSignal())
    assert f"the loss is nan at epoch 1, step 2, on the images {ids}" in str(error.value)
    assert str(run.last) in str(error.value)
    assert all(parameter.isfinite().all() for parameter in job.model.parameters())


def test_a_gradient_that_is_not_finite_names_step_images_and_checkpoint(make_job, make_run, monkeypatch):
    run, job = make_run("run"), make_job(dropout=0.0)
    before = {name: weight.clone() for name, weight in job.model.state_dict().items()}
    # zero, with an infinite slope
    monkeypatch.setattr(job.loss, "forward", lambda logits, targets: (logits - logits.detach()).abs().sum().sqrt())
    with pytest.raises(TrainingError, match=r"the gradient is not finite \(the loss is 0\) at epoch 1, step 1, on the"):
        train(job, start(job), run, StopSignal())
    assert_same(dict(job.model.state_dict()), before)


def test_a_bad_batch_of_a_window_is_named_alone(make_job, make_run, monkeypatch):
    run, job = make_run("run"), make_job(accumulation=2)
    original, calls = job.loss.forward, []

    def broken(logits, targets):
        calls.append(1)
        return original(logits, targets) * (float("inf") if len(calls) == 2 else 1.0)

    monkeypatch.setattr(job.loss, "forward", broken)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(3))
    ids = ", ".join(f"image{row:02d}" for row in order[4:8].tolist())
    with pytest.raises(TrainingError, match=f"the loss is inf at epoch 1, step 1, on the images {ids}; the last good"):
        train(job, start(job), run, StopSignal())


def test_diverged_weights_are_not_saved(make_job, make_run, monkeypatch):
    run, job = make_run("run"), make_job()

    def poison(*args, **kwargs):
        with torch.no_grad():
            job.model[0].weight.fill_(float("nan"))
        return torch.tensor([1.0, 0.0])

    monkeypatch.setattr(TrainStep, "__call__", poison)
    with pytest.raises(TrainingError, match="validation loss of epoch 1 is nan"):
        train(job, start(job), run, StopSignal())
    assert all(value.isfinite().all() for value in read_checkpoint(run.last)["model"].values())


@pytest.mark.parametrize(
    "failure",
    [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes")],
)
def test_out_of_memory_says_what_to_try(failure, make_job, make_run, monkeypatch):
    def fail(*args, **kwargs):
        raise failure

    job = make_job()
    monkeypatch.setattr(trainer, "iterate_batches", fail)
    with pytest.raises(TrainingError) as error:
        train(job, start(job), make_run("run"), StopSignal())
    for part in ("train.batch_size 4", "images of 12 x 12", "train.batch_size 2 train.accumulation 2"):
        assert part in str(error.value)


def test_other_runtime_errors_stay_what_they_are(make_job, make_run, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("shapes differ")

    job = make_job()
    monkeypatch.setattr(trainer, "iterate_batches", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(job, start(job), make_run("run"), StopSignal())


def test_the_best_checkpoint_has_the_lowest_validation_loss(make_job, make_run):
    run, job = make_run("run"), make_job(epochs=6, optimizer_arguments={"lr": 0.3})
    train(job, start(job), run, StopSignal())
    losses = [json.loads(line)["val_loss"] for line in run.metrics.read_text().splitlines()]
    best = read_checkpoint(run.best)["training"]["progress"]
    assert losses[best["epoch"] - 1] == min(losses)


def test_an_existing_run_folder_is_an_error(make_run, tmp_path):
    make_run("run")
    with pytest.raises(FileExistsError, match="go on with --resume"):
        RunFolder(tmp_path / "run").check_new()


def test_a_second_ctrl_c_stops_at_once():
    with StopSignal() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.signum == signal.SIGINT
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
