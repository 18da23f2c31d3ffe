"""A training step in several processes, here on the CPU: checked before it is timed."""

import pytest
import torch

from benchmarks import scaling
from benchmarks.model_check import WrongNetwork
from benchmarks.scaling import ScalingRun, scaling_rows
from mhsvm.runtime.distributed import World
from mhsvm.runtime.timing import Timing

RUN = ScalingRun("ultralight_vm_unet", "cpu", "float32", "eager", batch=2, size=32, steps=1)


def test_two_processes_take_steps_that_are_those_of_one(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert all(0 < seconds < 100 for seconds in RUN.time(2).seconds)


def test_rates_are_held_against_one_process(monkeypatch):
    monkeypatch.setattr(ScalingRun, "time", lambda run, number: Timing((1.0, 1.0) if number == 1 else (1.25, 1.25)))
    (row,) = scaling_rows(RUN, [4])
    assert (row["model"], row["phase"], row["batch"]) == ("ultralight_vm_unet", "training step, 4 processes", 8)
    assert (row["images_per_s"], row["of_linear"]) == (pytest.approx(6.4), pytest.approx(0.8))


def test_a_process_that_fails_says_why():
    with pytest.raises(
        WrongNetwork, match=r"(?s)^resnet is not timed, number of processes 1: .*unknown model 'resnet'"
    ):
        ScalingRun("resnet", "cpu", "float32", "eager", batch=1, size=32).time(1)


def test_a_wrong_shard_is_refused():
    """One process alone that takes itself for one of two."""
    step, images, targets = fresh()
    with pytest.raises(SystemExit, match="the loss is .* where one process has"):
        scaling._check(step, (images, targets), images, targets, World(size=2), torch.float32)


def test_wrong_gradients_are_refused():
    step, images, targets = fresh()
    for weight in step.model.parameters():
        weight.register_hook(lambda gradient: 1.5 * gradient)
    with pytest.raises(SystemExit, match=r"the gradients are off by 5\.0e-01 of their norm in one process"):
        scaling._check(step, (images, targets), images, targets, World(), torch.float32)


def test_right_ones_pass_and_are_those_of_one_process():
    step, images, targets = fresh()
    alone, _, _ = fresh()
    scaling._differentiate(alone.model, alone.loss, images, targets, like=images, dtype=torch.float32)
    scaling._check(step, (images, targets), images, targets, World(), torch.float32)
    assert scaling._gradient_error(step.model, alone.model) < 1e-6


def fresh():
    step = scaling.fresh_step("ultralight_vm_unet", device=torch.device("cpu"), dtype=torch.float32, mode="eager")
    return step, *scaling.random_batch(2, 32)
