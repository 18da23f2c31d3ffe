import pytest
import torch

from mhsvm.runtime.stop import StopSignal
from mhsvm.training import trainer
from mhsvm.training.errors import TrainingError
from mhsvm.training.trainer import train


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
        train(job, job.fresh_progress(), run, StopSignal())
    assert f"the loss is nan at epoch 1, step 2, on the images {ids}" in str(error.value)
    assert str(run.last) in str(error.value)
    assert all(parameter.isfinite().all() for parameter in job.model.parameters())


def test_a_gradient_that_is_not_finite_names_step_images_and_checkpoint(make_job, make_run, monkeypatch):
    run, job = make_run("run"), make_job(dropout=0.0)
    before = {name: weight.clone() for name, weight in job.model.state_dict().items()}
    # zero, with an infinite slope
    monkeypatch.setattr(job.loss, "forward", lambda logits, targets: (logits - logits.detach()).abs().sum().sqrt())
    with pytest.raises(TrainingError, match=r"the gradient is not finite \(the loss is 0\) at epoch 1, step 1, on the"):
        train(job, job.fresh_progress(), run, StopSignal())
    assert all(torch.equal(weight, before[name]) for name, weight in job.model.state_dict().items())


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
        train(job, job.fresh_progress(), run, StopSignal())


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
        train(job, job.fresh_progress(), make_run("run"), StopSignal())
    for part in ("train.batch_size 4", "images of 12 x 12", "train.batch_size 2 train.accumulation 2"):
        assert part in str(error.value)


def test_other_runtime_errors_stay_what_they_are(make_job, make_run, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("shapes differ")

    job = make_job()
    monkeypatch.setattr(trainer, "iterate_batches", fail)
    with pytest.raises(RuntimeError, match="shapes differ"):
        train(job, job.fresh_progress(), make_run("run"), StopSignal())
