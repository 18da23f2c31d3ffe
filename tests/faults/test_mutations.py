"""A few changed images and archives; `python -m tests.faults mutations --count 1500` makes many."""

import random

import pytest

pytest.importorskip("pillow_heif")
pytest.importorskip("pydicom")

from tests.faults import mutations
from tests.faults.outcomes import REFUSED, bad_outcomes


def test_no_changed_file_ends_in_a_traceback(tmp_path):
    counts = mutations.run(count=36, seed=0, folder=tmp_path)
    assert sum(map(sum, (outcomes.values() for outcomes in counts.values()))) == 36 + 12
    assert not any(bad_outcomes(outcomes) for outcomes in counts.values()), counts
    # some survive, and some are refused
    for outcome in (mutations.READ, REFUSED):
        assert sum(outcomes[outcome] for outcomes in counts.values()) > 5


def test_changes_keep_the_mark_of_the_format():
    content = bytes(range(100))
    changed = [mutations.mutate(content, random.Random(seed)) for seed in range(20)]
    assert all(each != content and each[:4] == content[:4] for each in changed)
