"""Switches of the process: set, and put back."""

import pytest
import torch

from mhsvm.runtime.numerics import convolutions_by_trial, numerics


def switches():
    return (
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.backends.cudnn.benchmark,
        torch.are_deterministic_algorithms_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    )


@pytest.mark.parametrize("tf32", [False, True])
@pytest.mark.parametrize("deterministic", [False, True])
def test_switches_are_set_and_put_back(tf32, deterministic):
    before = switches()
    with numerics(tf32=tf32, deterministic=deterministic):
        assert switches() == (tf32, tf32, not deterministic, deterministic, not deterministic)
    assert switches() == before


def test_nothing_is_tried_inside_a_deterministic_block():
    before = switches()
    with numerics(tf32=False, deterministic=True), convolutions_by_trial():
        assert not torch.backends.cudnn.benchmark
    with convolutions_by_trial():
        assert torch.backends.cudnn.benchmark
    assert switches() == before


def fail():
    with numerics(tf32=True, deterministic=True):
        raise RuntimeError("out")


def test_an_error_puts_them_back_too():
    before = switches()
    with pytest.raises(RuntimeError, match="out"):
        fail()
    assert switches() == before
