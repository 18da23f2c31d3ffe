"""Two models on the same images, against exact tests and scipy's."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from mhsvm.metrics import Scores, adjust_p_values, paired_differences, per_image, summarize


def measured(num, seed, *, hits, pixels=100, distances=False):
    """Images of `pixels` lesion pixels of which about `hits` are found, and some background."""
    generator = torch.Generator().manual_seed(seed)
    tp = (hits + 8 * torch.randn(num, generator=generator)).round().long().clamp(0, pixels)
    fp = torch.randint(0, 30, (num,), generator=generator)
    counts = torch.stack([tp, fp, pixels - tp, 300 - fp], dim=-1).unsqueeze(1)
    far = torch.rand(num, 1, 2, dtype=torch.float64, generator=generator) if distances else None
    return Scores(tuple(map(str, range(num))), counts, far)


def differences_of(first, second, name):
    return (per_image(first.counts)[name] - per_image(second.counts)[name]).squeeze(1).numpy()


def test_few_images_are_tested_exactly():
    first, second = measured(9, 0, hits=90), measured(9, 1, hits=80)
    found = paired_differences(first, second)
    theirs = stats.permutation_test(
        (per_image(first.counts)["dice"].squeeze(1).numpy(), per_image(second.counts)["dice"].squeeze(1).numpy()),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=np.inf,
    )
    assert found["dsc_per_image"].p_value == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found["dsc_per_image"].p_value * 2**9 == pytest.approx(round(found["dsc_per_image"].p_value * 2**9))


def test_pooled_figures_are_tested_by_swapping_images():
    first, second = measured(6, 0, hits=90), measured(6, 1, hits=80)
    observed = summarize(first.counts)["miou"] - summarize(second.counts)["miou"]
    as_large = 0
    for swaps in range(2**6):
        chosen = torch.tensor([(swaps >> place) & 1 for place in range(6)], dtype=torch.bool).view(-1, 1, 1)
        one, other = (a.where(chosen, b) for a, b in ((first.counts, second.counts), (second.counts, first.counts)))
        as_large += abs(summarize(one)["miou"] - summarize(other)["miou"]) >= abs(observed) - 1e-12
    found = paired_differences(first, second)["miou"]
    assert (found.value, found.p_value) == (pytest.approx(observed, abs=1e-12), as_large / 2**6)


def test_many_images_are_tested_by_tosses():
    first, second = measured(80, 2, hits=84), measured(80, 3, hits=82)
    found = paired_differences(first, second)["accuracy_per_image"]
    differences = differences_of(first, second, "accuracy")
    normal = 2 * stats.norm.sf(abs(differences.sum()) / np.sqrt((differences**2).sum()))
    assert 0.02 < normal < 0.9
    assert found.p_value == pytest.approx(normal, abs=0.02)
    assert found.value == pytest.approx(differences.mean(), abs=1e-12)
    assert found.effect_size == pytest.approx(differences.mean() / differences.std(ddof=1), abs=1e-12)
    low, high = found.interval
    spread = 1.96 * differences.std() / np.sqrt(80)
    assert (low, high) == pytest.approx((found.value - spread, found.value + spread), abs=0.15 * spread)


def test_a_clear_difference_is_never_certain():
    found = paired_differences(measured(50, 0, hits=95), measured(50, 1, hits=20), resamples=99)
    assert found["miou"].p_value == 1 / 100
    assert found["miou"].interval[0] > 0
    assert found["miou"].effect_size is None
    assert found["jaccard_thresholded"].effect_size > 2


def test_the_other_way_round_is_the_negative():
    first, second = measured(30, 0, hits=90), measured(30, 1, hits=85)
    found, other = paired_differences(first, second), paired_differences(second, first)
    for name, difference in found.items():
        assert other[name].value == pytest.approx(-difference.value, abs=1e-12)
        assert other[name].p_value == difference.p_value
        assert other[name].interval == pytest.approx((-difference.interval[1], -difference.interval[0]), abs=1e-9)


def test_the_same_model_twice():
    first = measured(30, 0, hits=90, distances=True)
    for difference in paired_differences(first, first).values():
        assert (difference.value, difference.interval, difference.p_value) == (0.0, (0.0, 0.0), 1.0)
        assert difference.effect_size is None


def test_distances_are_compared_where_both_have_them():
    first, second = measured(20, 0, hits=90, distances=True), measured(20, 1, hits=90, distances=True)
    first.distances[3], second.distances[5] = math.nan, math.nan
    both = [row for row in range(20) if row not in (3, 5)]
    expected = (first.distances - second.distances)[both].mean(dim=(0, 1)).tolist()
    found = paired_differences(first, second)
    assert [found[f"{name}_per_image"].value for name in ("hd95", "assd")] == pytest.approx(expected, abs=1e-12)
    without = Scores(second.ids, second.counts)
    assert "hd95_per_image" not in paired_differences(first, without)


def test_distances_that_no_image_has_in_both():
    first, second = measured(20, 0, hits=90, distances=True), measured(20, 1, hits=90, distances=True)
    first.distances[:10], second.distances[10:] = math.nan, math.nan
    found = paired_differences(first, second)["hd95_per_image"]
    assert math.isnan(found.value)
    assert math.isnan(found.p_value)
    assert found.effect_size is None


def test_what_cannot_be_paired():
    first = measured(5, 0, hits=90)
    with pytest.raises(ValueError, match="in the same order; got 5 and 4: select the rows of the common ids"):
        paired_differences(first, first.rows(torch.arange(4)))
    with pytest.raises(ValueError, match="against the same targets; theirs differ"):
        paired_differences(first, measured(5, 0, hits=90, pixels=101))
    with pytest.raises(ValueError, match="at least 1 resample is needed"):
        paired_differences(first, first, resamples=0)


def test_holm():
    assert adjust_p_values([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert adjust_p_values([0.6, 0.9]) == [1.0, 1.0]
    assert adjust_p_values([0.04]) == [0.04]
