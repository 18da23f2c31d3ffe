"""Counts and the figures of an image, against numbers counted by hand and the rules of the ISIC challenge."""

import numpy as np
import pytest
import torch

from mhsvm.metrics import (
    PER_IMAGE,
    check_arrays,
    class_counts,
    confusion_array,
    confusion_counts,
    confusion_matrices,
    count_pairs,
    per_image,
)

TRUTH = torch.tensor([[[1, 1, 0], [1, 0, 0]], [[0, 0, 0], [0, 0, 0]]])
PRED = torch.tensor([[[1, 0, 1], [1, 0, 0]], [[0, 0, 0], [0, 0, 1]]])


def test_counts_by_hand():
    # (tp, fp, fn, tn), read off the maps above
    assert confusion_counts(PRED, TRUTH).tolist() == [[2, 1, 1, 2], [0, 1, 0, 5]]
    assert confusion_matrices(PRED, TRUTH).tolist() == [[[2, 1], [1, 2]], [[5, 1], [0, 0]]]


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int64])
def test_counts_take_every_kind_of_mask(dtype):
    counts = confusion_counts(PRED.to(dtype), TRUTH.to(dtype))
    assert counts.dtype == torch.int64
    assert counts.tolist() == [[2, 1, 1, 2], [0, 1, 0, 5]]
    assert confusion_counts(PRED.to(dtype)[:, None], TRUTH.to(dtype)[:, None]).tolist() == counts.tolist()


def test_counts_do_not_overflow_uint8():
    ones = torch.ones(1, 300, 300, dtype=torch.uint8)
    assert confusion_counts(ones, ones).tolist() == [[90_000, 0, 0, 0]]


def test_several_classes_with_ignore():
    truth = torch.tensor([[[0, 1, 1, 2], [2, 2, 255, 255]]], dtype=torch.uint8)
    pred = torch.tensor([[[0, 1, 2, 2], [2, 0, 1, 0]]], dtype=torch.uint8)
    matrix = confusion_matrices(pred, truth, num_classes=3)
    assert matrix.tolist() == [[[1, 0, 0], [0, 1, 1], [1, 0, 2]]]
    # classes 1 and 2 against the rest, of the six pixels that count
    assert confusion_counts(pred, truth, num_classes=3).tolist() == [[[1, 0, 1, 4], [2, 1, 1, 2]]]
    assert class_counts(matrix).tolist() == [[[1, 0, 1, 4], [2, 1, 1, 2]]]


def test_two_classes_keep_their_axis():
    pred = PRED.to(torch.uint8)
    assert confusion_counts(pred, TRUTH, num_classes=2).tolist() == [[[2, 1, 1, 2]], [[0, 1, 0, 5]]]


def test_counts_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(4, (3, 7, 5), generator=generator)
    pred = torch.randint(4, (3, 7, 5), generator=generator)
    expected = torch.zeros(3, 4, 4, dtype=torch.int64)
    for image in range(3):
        for is_, taken_for in zip(truth[image].flatten(), pred[image].flatten(), strict=True):
            expected[image, is_, taken_for] += 1
    assert torch.equal(confusion_matrices(pred, truth, num_classes=4), expected)


@pytest.mark.gpu
@pytest.mark.parametrize("num_classes", [1, 3])
def test_a_gpu_counts_alike_and_makes_nobody_wait(num_classes):
    generator = torch.Generator().manual_seed(0)
    truth, pred = (torch.randint(max(num_classes, 2), (5, 9, 7), generator=generator) for _ in range(2))
    if num_classes > 1:
        truth[2, :4] = 255
    expected = confusion_matrices(pred, truth, num_classes=num_classes)
    pred, truth = pred.cuda(), truth.cuda()
    mode = torch.cuda.get_sync_debug_mode()
    try:
        torch.cuda.set_sync_debug_mode("error")
        found = count_pairs(pred, truth, num_classes=num_classes)
    finally:
        torch.cuda.set_sync_debug_mode(mode)
    assert torch.equal(found.cpu(), expected)


@pytest.mark.parametrize(
    ("pred", "truth", "num_classes", "message"),
    [
        (torch.zeros(1, 2, 2), torch.zeros(1, 2, 3), 1, r"differ in shape: \(1, 2, 2\) and \(1, 2, 3\)"),
        (
            torch.full((1, 1), 2),
            torch.zeros(1, 1, dtype=int),
            1,
            r"the prediction has values outside 0\.\.1, such as 2",
        ),
        (
            torch.zeros(1, 1, dtype=int),
            torch.full((1, 1), 255),
            1,
            r"the target has values outside 0\.\.1, such as 255",
        ),
        (torch.zeros(1, 1, dtype=int), torch.full((1, 1), 3), 3, r"the target has values outside 0\.\.2, such as 3"),
        (
            torch.full((1, 1), 255),
            torch.zeros(1, 1, dtype=int),
            3,
            r"the prediction has values outside 0\.\.2, such as 255",
        ),
        (torch.full((1, 1), -1), torch.zeros(1, 1, dtype=int), 1, r"outside 0\.\.1, such as -1"),
        (torch.full((1, 1), 0.7), torch.zeros(1, 1, dtype=int), 1, r"fractions, not classes: apply the threshold"),
    ],
)
def test_what_is_no_mask_is_refused(pred, truth, num_classes, message):
    with pytest.raises(ValueError, match=message):
        confusion_counts(pred, truth, num_classes=num_classes)


# Rules of isic-challenge-scoring 5.6, restated: ratios of counts, and 1 where there is nothing to divide by.
@pytest.mark.parametrize(
    ("counts", "jaccard", "dice", "accuracy", "sensitivity", "specificity"),
    [
        ((2, 1, 1, 2), 2 / 4, 4 / 6, 4 / 6, 2 / 3, 2 / 3),
        ((0, 0, 0, 9), 1.0, 1.0, 1.0, 1.0, 1.0),  # nothing there, nothing found
        ((0, 3, 0, 6), 0.0, 0.0, 6 / 9, 1.0, 6 / 9),  # nothing there, something found
        ((0, 0, 3, 6), 0.0, 0.0, 6 / 9, 0.0, 1.0),  # everything missed
        ((9, 0, 0, 0), 1.0, 1.0, 1.0, 1.0, 1.0),  # everything is lesion
    ],
)
def test_metrics_of_an_image(counts, jaccard, dice, accuracy, sensitivity, specificity):
    figures = per_image(torch.tensor(counts))
    assert tuple(figures) == PER_IMAGE
    expected = (jaccard, dice, accuracy, sensitivity, specificity)
    assert [value.item() for value in figures.values()] == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize("num_classes", [1, 2, 4, 255])
def test_arrays_of_one_image_have_the_counts_of_tensors(num_classes):
    generator = np.random.default_rng(num_classes)
    top = max(num_classes, 2)
    pred, target = (generator.integers(top, size=(9, 11), dtype=np.uint8) for _ in range(2))
    if num_classes > 1:
        target[:2] = 255
    check_arrays(pred, target, num_classes)
    expected = confusion_matrices(torch.from_numpy(pred)[None], torch.from_numpy(target)[None], num_classes=num_classes)
    found = confusion_array(pred, target, num_classes=num_classes)
    assert found.dtype == np.int64
    assert found.tolist() == expected[0].tolist()


@pytest.mark.parametrize(
    ("pred", "target", "num_classes", "message"),
    [
        ([[0, 1]], [[0, 1, 1]], 1, "differ in shape"),
        ([[0, 2]], [[0, 1]], 1, r"the prediction has values outside 0\.\.1, such as 2"),
        ([[0, 1]], [[0, 255]], 1, r"the target has values outside 0\.\.1, such as 255"),
        ([[0, 1]], [[3, 255]], 3, r"the target has values outside 0\.\.2, such as 3"),
        ([[0, 255]], [[0, 1]], 3, r"the prediction has values outside 0\.\.2, such as 255"),
    ],
)
def test_arrays_that_are_no_masks(pred, target, num_classes, message):
    with pytest.raises(ValueError, match=message):
        check_arrays(np.array(pred, np.uint8), np.array(target, np.uint8), num_classes)
