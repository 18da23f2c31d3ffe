"""Majority and STAPLE: hand counts, the algorithm of the paper in float64, and SimpleITK's corner cases."""

import numpy as np
import pytest

from mhsvm.data import consensus
from mhsvm.data.consensus import as_labels, as_stored, consensus_mask, majority_mask, staple_mask


def disc(radius, center=(16, 16), side=32):
    rows, columns = np.mgrid[:side, :side]
    return ((rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius**2).astype(np.uint8)


def staple_by_hand(masks, steps=500):
    """The algorithm of Warfield et al. 2004 for two labels; the probability of lesion."""
    votes = masks.reshape(len(masks), -1).astype(np.float64)
    prior = votes.mean()
    sensitivity, specificity = (np.full((len(masks), 1), 0.99999) for _ in range(2))
    for _ in range(steps):
        lesion = prior * np.prod(np.where(votes == 1, sensitivity, 1 - sensitivity), axis=0)
        skin = (1 - prior) * np.prod(np.where(votes == 0, specificity, 1 - specificity), axis=0)
        weight = lesion / (lesion + skin)
        sensitivity = (votes @ weight)[:, None] / weight.sum()
        specificity = ((1 - votes) @ (1 - weight))[:, None] / (1 - weight).sum()
    return weight.reshape(masks.shape[1:])


def test_the_majority_is_more_than_half():
    votes = np.array([[[1, 1, 1, 0]], [[1, 1, 0, 0]], [[1, 0, 0, 0]]], np.uint8)
    assert majority_mask(votes).tolist() == [[1, 1, 0, 0]]
    # divided equally is background
    assert majority_mask(votes[:2]).tolist() == [[1, 1, 0, 0]]
    assert majority_mask(votes[1:]).tolist() == [[1, 0, 0, 0]]
    assert majority_mask(votes[:1]).tolist() == votes[0].tolist()


def test_the_majority_of_classes_counts_no_ignored_pixels():
    votes = np.array([[[2, 2, 0, 255, 255]], [[2, 1, 1, 1, 255]], [[1, 0, 1, 0, 255]]], np.uint8)
    assert majority_mask(votes, num_classes=3).tolist() == [[2, 0, 1, 0, 255]]


@pytest.mark.parametrize("radii", [(8, 10, 12), (5, 9, 10, 10), (7, 11, 6)])
def test_staple_is_that_of_the_paper(radii):
    masks = np.stack([disc(radius, (16, 14 + place)) for place, radius in enumerate(radii)])
    expected = staple_by_hand(masks)
    # clear, so that rounding does not decide a pixel
    assert (np.abs(expected - 0.5) > 0.01).all()
    assert np.array_equal(staple_mask(masks), (expected > 0.5).astype(np.uint8))


@pytest.mark.parametrize("mask", [np.zeros((8, 8)), np.ones((8, 8)), disc(7)])
def test_equal_masks_are_their_own_consensus(mask):
    result = staple_mask(np.stack([mask] * 3))
    assert result.dtype == np.uint8
    assert np.array_equal(result, mask)


def test_one_of_three_is_empty():
    masks = np.stack([disc(8), disc(8), np.zeros_like(disc(8))])
    assert np.array_equal(staple_mask(masks), disc(8))
    # a tie, which rounding does not decide
    for side in (32, 40, 51):
        mask = disc(8, side=side)
        assert not staple_mask(np.stack([mask, np.zeros_like(mask)])).any()
    # against two empty ones, a lesion is less likely than not
    assert not staple_mask(np.stack([disc(8), np.zeros_like(disc(8)), np.zeros_like(disc(8))])).any()


def test_levels_of_stored_masks():
    stored = np.array([[0, 127, 128, 255]], np.uint8)
    assert as_labels(stored, 1).tolist() == [[0, 0, 1, 1]]
    assert as_stored(as_labels(stored, 1), 1).tolist() == [[0, 0, 255, 255]]
    assert as_stored(as_labels(stored, 3), 3) is stored
    assert consensus_mask("majority", as_labels(stored, 1)[None]).tolist() == [[0, 0, 1, 1]]


def test_without_simpleitk_staple_names_the_extra(monkeypatch):
    monkeypatch.setattr(consensus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'mhsvm\[raters\]'"):
        staple_mask(np.stack([disc(7), disc(8)]))
    # equal masks need none
    assert staple_mask(np.stack([disc(7), disc(7)])).any()
