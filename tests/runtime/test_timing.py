import time
from collections import Counter

import pytest
import torch

from mhsvm.runtime.timing import Timing, capture, copy_rate, peak_bytes, time_interleaved

CPU = torch.device("cpu")


def test_median_and_quartiles():
    timing = Timing((5.0, 1.0, 2.0, 3.0, 4.0))
    assert timing.median == 3.0
    assert timing.quartiles == (2.0, 4.0)
    assert timing.to_dict() == {"median_s": 3.0, "quartiles_s": [2.0, 4.0], "samples": 5}


def test_times_are_those_of_the_calls():
    timings = time_interleaved(
        {"short": lambda i: time.sleep(0.002), "long": lambda i: time.sleep(0.01)}, device=CPU, seconds=0.03
    )
    assert list(timings) == ["short", "long"]
    assert 0.002 <= timings["short"].median < timings["long"].quartiles[0]
    assert 0.01 <= timings["long"].median < 0.1


def test_candidates_take_turns_and_none_always_comes_first():
    calls = []
    timings = time_interleaved(
        {name: lambda i, name=name: calls.append((i, name)) for name in "abc"}, device=CPU, seconds=1e-7
    )
    assert {len(timing.seconds) for timing in timings.values()} == {5}
    timed = calls[-15:]
    rounds = [timed[start : start + 3] for start in range(0, 15, 3)]
    assert [{i for i, _ in calls_of_round} for calls_of_round in rounds] == [{0}, {1}, {2}, {3}, {4}]
    assert all(sorted(name for _, name in calls_of_round) == ["a", "b", "c"] for calls_of_round in rounds)
    assert Counter(calls_of_round[0][1] for calls_of_round in rounds) == {"a": 2, "b": 2, "c": 1}


def test_a_short_call_is_timed_for_about_as_long_as_asked():
    timings = time_interleaved({"one": lambda i: time.sleep(0.001)}, device=CPU, seconds=0.05)
    assert 10 < len(timings["one"].seconds) <= 60


def test_copy_rate_is_that_of_memory():
    assert 1e8 < copy_rate(CPU, seconds=0.01) < 1e13


def test_peak_memory_of_a_cpu_is_not_claimed():
    assert peak_bytes(lambda i: torch.empty(10), CPU) is None


@pytest.mark.gpu
def test_on_a_gpu():
    device = torch.device("cuda")
    x = torch.zeros(2**20, device=device)
    assert peak_bytes(lambda i: x + 1, device) == x.numel() * 4
    timings = time_interleaved({"add": lambda i: x + 1}, device=device, seconds=0.01)
    assert 0 < timings["add"].median < 0.01


@pytest.mark.gpu
def test_captured_rounds_do_what_they_did():
    sums = torch.zeros(3, device="cuda")
    run = capture(lambda i: sums[i % 3].add_(i + 1), num=3, device=torch.device("cuda"))
    sums.zero_()
    for i in range(4):
        run(i)
    assert sums.tolist() == [2.0, 2.0, 3.0]
