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
    assert score.names == ("hd95", "assd", "boundary_iou", "nsd", "nsd_diagonal")
    assert score.distances[0, :2].tolist() == [1.0, 0.5]
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
    assert joined.scores.distances.shape == (3, 1, 5)
    assert joined.scores.num_unbounded == 1


def test_several_classes():
    score = score_image(PRED, TRUTH * 2, num_classes=3, boundary=True)
    joined = join_scores(["a"], [score])
    assert joined.scores.counts.tolist() == [[[0, 4, 0, 8], [0, 0, 4, 8]]]
    # one of two masks is empty
    assert torch.isnan(joined.scores.distances[..., :2]).all()
    assert joined.scores.distances[..., 2:].tolist() == [[[0.0] * 3] * 2]


def test_probabilities_are_ranked():
    probability = torch.tensor([[[0.2, 0.9, 0.4, 0.1], [0.9, 0.9, 0.4, 0.1], [0.4, 0.1, 0.1, 0.1]]])
    score = score_image(PRED, TRUTH, num_classes=1, boundary=False, probability=probability)
    assert score.names == ("auc", "average_precision")
    # 4 lesion pixels: 3 above all others, 1 above 5 and below 3 of 8; the precision is 3 of 3 for 3 and 4 of 7 for 1
    assert score.distances[0].tolist() == pytest.approx([(3 * 8 + 5) / 32, (3 + 4 / 7) / 4])
    joined = join_scores(["a", "b"], [score, score])
    assert joined.levels.sum().item() == 24
    assert joined.scores.distances.shape == (2, 1, 2)


def test_without_distances():
    joined = join_scores(["a"], [score_image(PRED, TRUTH, num_classes=1, boundary=False)])
    assert joined.scores.distances is None
    with pytest.raises(ValueError, match="differ in shape"):
        score_image(PRED, TRUTH[:2], num_classes=1, boundary=False)
