import contextlib
import json
import math
from dataclasses import replace

import pytest
import torch

from mhsvm.evaluation.evaluator import Evaluation
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.runtime.stop import StopSignal
from mhsvm.training.errors import Interrupted, TrainingError
from mhsvm.training.step import TrainStep
from mhsvm.training.trainer import train, train_epoch


def test_accumulated_batches_step_like_one(make_job):
    weights = []
    for batch_size, accumulation in ((8, 1), (4, 2), (3, 3)):
        job = make_job(batch_size=batch_size, accumulation=accumulation, dropout=0.0, num_images=8, epochs=1)
        records = []
        train_epoch(job, job.fresh_progress(), records.append)
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
        train_epoch(job, job.fresh_progress())
        norms.append(torch.cat([p.grad.flatten() for p in job.model.parameters()]).norm().item())
    assert norms[0] > 1e-2
    assert norms[1] == pytest.approx(1e-3, rel=1e-3)


def test_bfloat16_computes_in_16_bits_and_follows_float32(make_job):
    types, losses = [], {}
    for precision in (torch.float32, torch.bfloat16):
        job = make_job(precision=precision, dropout=0.0, epochs=1)
        job.model[0].register_forward_hook(lambda module, inputs, output: types.append(output.dtype))
        records = []
        train_epoch(job, job.fresh_progress(), records.append)
        losses[precision] = [record.loss for record in records]
        assert {parameter.dtype for parameter in job.model.parameters()} == {torch.float32}
    assert types == [torch.float32] * 3 + [torch.bfloat16] * 3
    assert losses[torch.bfloat16] == pytest.approx(losses[torch.float32], rel=2e-2)
    assert losses[torch.bfloat16] != losses[torch.float32]


def test_diverged_weights_are_not_saved(make_job, make_run, monkeypatch):
    run, job = make_run("run"), make_job()

    def poison(*args, **kwargs):
        with torch.no_grad():
            job.model[0].weight.fill_(float("nan"))
        return torch.tensor([1.0, 0.0])

    monkeypatch.setattr(TrainStep, "__call__", poison)
    with pytest.raises(TrainingError, match="validation loss of epoch 1 is nan"):
        train(job, job.fresh_progress(), run, StopSignal())
    assert all(value.isfinite().all() for value in read_checkpoint(run.last)["model"].values())


def test_the_best_checkpoint_has_the_lowest_validation_loss(make_job, make_run):
    run, job = make_run("run"), make_job(epochs=6, optimizer_arguments={"lr": 0.3})
    train(job, job.fresh_progress(), run, StopSignal())
    losses = [json.loads(line)["val_loss"] for line in run.metrics.read_text().splitlines()]
    best = read_checkpoint(run.best)["training"]["progress"]
    assert losses[best["epoch"] - 1] == min(losses)


def test_metrics_without_a_class_are_not_recorded_as_numbers(make_job, make_run, monkeypatch, caplog):
    run, job = make_run("run"), make_job(epochs=1)
    undefined = {"loss": 0.5, "miou": math.nan, "dsc": math.nan}
    monkeypatch.setattr(Evaluation, "metrics", lambda self: undefined)
    with caplog.at_level("INFO", logger="mhsvm"):
        train(replace(job, warnings=("nothing to find",)), job.fresh_progress(), run, StopSignal())
    line = json.loads(run.metrics.read_text())
    assert (line["val_loss"], line["val_dsc"]) == (0.5, None)
    assert "warning: nothing to find" in caplog.messages
    assert "val_loss 0.5, val_miou -, val_dsc - (best)" in caplog.text


def test_random_masks_differ_by_epoch_and_resume_in_the_middle_of_one(make_job):
    def with_two_raters():
        job = make_job(epochs=2, dropout=0.0)
        own = job.train_set
        # the second rater marks what the first one does not
        masks = torch.stack([own.masks, 255 - own.masks], dim=1).flatten(0, 1)
        starts = 2 * torch.arange(len(own) + 1)
        return replace(job, train_set=replace(own, masks=masks, starts=starts, mask_rows=starts[:-1]))

    def losses_of(job, progress, stop_after=None):
        records = []

        def check():
            if stop_after is not None and len(records) >= stop_after:
                raise Interrupted

        with contextlib.suppress(Interrupted):
            train_epoch(job, progress, records.append, check)
        return [record.loss for record in records]

    straight = with_two_raters()
    whole = losses_of(straight, straight.fresh_progress())
    stopped = with_two_raters()
    progress = stopped.fresh_progress()
    begun = losses_of(stopped, progress, stop_after=1)
    assert len(begun) == 1
    assert begun + losses_of(stopped, progress) == whole
    # one rater alone has other losses
    single = make_job(epochs=2, dropout=0.0)
    assert losses_of(single, single.fresh_progress()) != whole
