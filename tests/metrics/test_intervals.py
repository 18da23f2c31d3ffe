"""Intervals against all resamples of a few images, against scipy's bootstrap, and their limits."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import stats

from mhsvm.metrics import Scores, bootstrap_intervals, per_image, summarize

COUNTS = torch.tensor([[[2, 1, 1, 2]], [[0, 1, 0, 5]], [[4, 0, 0, 2]], [[1, 2, 2, 1]]])
MANY = torch.randint(1, 50, (200, 1, 4), generator=torch.Generator().manual_seed(1))


def scores(counts, distances=None):
    return Scores(tuple(map(str, range(len(counts)))), counts, distances)


@pytest.mark.parametrize("name", ["miou", "dsc_per_image", "jaccard_thresholded", "specificity"])
def test_against_all_resamples_of_four_images(name):
    every = [summarize(COUNTS[list(rows)])[name] for rows in itertools.product(range(4), repeat=4)]
    # percentiles of 256 equally likely values, in whose middle the drawn ones must lie too
    low, high = bootstrap_intervals(scores(COUNTS), confidence=0.8)[name]
    assert np.quantile(every, 0.08) - 1e-12 <= low <= np.quantile(every, 0.12) + 1e-12
    assert np.quantile(every, 0.88) - 1e-12 <= high <= np.quantile(every, 0.92) + 1e-12


def test_against_scipy():
    dice = per_image(MANY)["dice"].squeeze(1).numpy()
    theirs = stats.bootstrap(
        (dice,), np.mean, method="percentile", n_resamples=10_000, rng=np.random.default_rng(0)
    ).confidence_interval
    low, high = bootstrap_intervals(scores(MANY))["dsc_per_image"]
    width = theirs.high - theirs.low
    # both err by a hundredth or so of the width
    assert low == pytest.approx(theirs.low, abs=0.05 * width)
    assert high == pytest.approx(theirs.high, abs=0.05 * width)


def test_all_figures_have_an_interval_around_them():
    distances = torch.rand(200, 1, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    distances[::7] = math.nan
    measured = scores(MANY, distances)
    intervals = bootstrap_intervals(measured, resamples=500)
    assert list(intervals) == list(measured.metrics())
    for name, value in measured.metrics().items():
        low, high = intervals[name]
        assert low <= value <= high, name
    assert intervals["hd95_per_image"][0] < intervals["hd95_per_image"][1]


def test_the_seed_decides():
    first, same, other = (bootstrap_intervals(scores(MANY), resamples=300, seed=seed) for seed in (1, 1, 2))
    assert first == same
    assert first != other


def test_drawing_in_parts_changes_nothing(monkeypatch):
    whole = bootstrap_intervals(scores(MANY), resamples=100)
    monkeypatch.setattr("mhsvm.metrics.intervals._WEIGHTS", 700)
    parts = bootstrap_intervals(scores(MANY), resamples=100)
    for name in whole:
        assert parts[name] == pytest.approx(whole[name], abs=1e-12)


def test_of_one_image_the_interval_is_a_point():
    low, high = bootstrap_intervals(scores(COUNTS[:1]), resamples=10)["miou"]
    assert low == high == 0.5


def test_what_no_image_has_has_no_interval():
    distances = torch.full((4, 1, 2), math.nan, dtype=torch.float64)
    intervals = bootstrap_intervals(scores(COUNTS, distances), resamples=10)
    assert all(math.isnan(limit) for limit in intervals["assd_per_image"])
    assert not any(math.isnan(limit) for limit in intervals["miou"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resamples": 0}, "at least 1 resample is needed, such as 10000; got 0"),
        ({"confidence": 95}, "a confidence is between 0 and 1, such as 0.95; got 95"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_intervals(scores(COUNTS), **options)


def test_no_images():
    with pytest.raises(ValueError, match="there are no images to sample from"):
        bootstrap_intervals(scores(COUNTS[:0]))
