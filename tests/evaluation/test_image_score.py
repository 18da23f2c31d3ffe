"""One mask against one truth, and several together."""

import numpy as np
import pytest
import torch

from mhsvm.evaluation.image_score import join_scores, score_image

TRUTH = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], np.uint8)
PRED = np.array([[0, 1, 1, 0], [0, 1, 1, 0], [0, 0, 0, 0]], np.uint8)


def test_counts_distances_and_size():
    score = score_image(PRED, TRUTH, num_classes=1, boundary=True)
    assert score.confusion.tolist() == [[6, 2], [2, 2]]
    # each outline is the whole square; half of it lies on the other, half is one pixel away
    assert score.distances.tolist() == [[1.0, 0.5]]
    assert score.size == (3, 4)
    assert score_image(PRED, TRUTH, num_classes=1, boundary=False).distances is None


def test_images_of_different_sizes_together():
    scores = [
        score_image(pred, truth, num_classes=1, boundary=True)
        for pred, truth in ((PRED, TRUTH), (PRED[:2, :3], TRUTH[:2, :3]), (np.zeros_like(PRED), TRUTH))
    ]
    joined = join_scores(["a", "b", "c"], scores)
    assert joined.scores.ids == ("a", "b", "c")
    assert joined.scores.counts.tolist() == [[[2, 2, 2, 6]], [[2, 2, 2, 0]], [[0, 0, 4, 8]]]
    assert joined.confusion.tolist() == [[14, 4], [8, 4]]
    assert joined.sizes == ((3, 4), (2, 3), (3, 4))
    assert joined.scores.distances.shape == (3, 1, 2)
    assert joined.scores.num_unbounded == 1


def test_several_classes():
    score = score_image(PRED, TRUTH * 2, num_classes=3, boundary=True)
    joined = join_scores(["a"], [score])
    assert joined.scores.counts.tolist() == [[[0, 4, 0, 8], [0, 0, 4, 8]]]
    assert torch.isnan(joined.scores.distances).all()


def test_without_distances():
    joined = join_scores(["a"], [score_image(PRED, TRUTH, num_classes=1, boundary=False)])
    assert joined.scores.distances is None
    with pytest.raises(ValueError, match="differ in shape"):
        score_image(PRED, TRUTH[:2], num_classes=1, boundary=False)
