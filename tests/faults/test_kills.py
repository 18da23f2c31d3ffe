"""A few signals; `python -m tests.faults kills --count 30` sends many."""

from collections import Counter

from tests.faults import kills
from tests.faults.outcomes import UNCHANGED


def test_an_interrupted_training_ends_like_one_that_was_not(tmp_path):
    counts = kills.run(count=2, seed=0, folder=tmp_path, epochs=8)
    assert counts == {
        "KILL": Counter({UNCHANGED: 1}),
        "TERM": Counter({UNCHANGED: 1}),
        "INT": Counter(),
        "STOP": Counter(),
    }
