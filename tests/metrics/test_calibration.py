"""Calibration and threshold sweep, against pixels counted one by one."""

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve

from mhsvm.metrics import CalibrationCounts, calibration, confusion_counts, summarize, threshold_sweep

GENERATOR = torch.Generator().manual_seed(0)
PROBABILITY = torch.rand(5, 1, 16, 16, generator=GENERATOR)
TRUTH = (torch.rand(5, 16, 16, generator=GENERATOR) < PROBABILITY[:, 0] ** 2).to(torch.uint8)


def counted(probability, truth, batch_size=2):
    counts = CalibrationCounts()
    for batch, batch_truth in zip(probability.split(batch_size), truth.split(batch_size), strict=True):
        counts.add(batch, batch_truth)
    return counts


def test_the_curve_is_that_of_scikit_learn():
    found = calibration(counted(PROBABILITY, TRUTH))
    frequency, probability = calibration_curve(TRUTH.flatten(), PROBABILITY.flatten(), n_bins=20, strategy="uniform")
    np.testing.assert_allclose(found.frequency, frequency, atol=1e-12)
    np.testing.assert_allclose(found.probability, probability, atol=1e-7)
    assert found.num_pixels.sum() == TRUTH.numel()
    gaps = np.abs(frequency - probability) * found.num_pixels.numpy()
    assert found.ece == pytest.approx(gaps.sum() / TRUTH.numel(), abs=1e-7)
    assert found.ece > 0.1


def test_certain_and_right_is_calibrated():
    found = calibration(counted(TRUTH[:, None].float(), TRUTH))
    assert found.ece == 0.0
    assert found.num_pixels[1:-1].sum() == 0
    assert found.frequency[[0, -1]].tolist() == [0.0, 1.0]
    assert found.frequency[1:-1].isnan().all()


def test_batches_do_not_matter():
    single, whole = counted(PROBABILITY, TRUTH, 1), counted(PROBABILITY, TRUTH, 5)
    assert torch.equal(single.counts, whole.counts)
    assert torch.equal(single.mean_probability, whole.mean_probability)


@pytest.mark.parametrize("threshold", [0.05, 0.3, 0.5, 0.95])
def test_the_sweep_counts_what_thresholds_give(threshold):
    probability = PROBABILITY.clone()
    # values on a threshold are lesion, as the evaluator decides
    probability[0, 0, :4] = threshold
    found = threshold_sweep(counted(probability, TRUTH))[threshold]
    assert found == summarize(confusion_counts(probability >= threshold, TRUTH[:, None]))


def test_the_sweep_has_nineteen_thresholds():
    assert list(threshold_sweep(counted(PROBABILITY, TRUTH))) == pytest.approx([n / 20 for n in range(1, 20)])


def test_several_classes_count_the_likeliest():
    probability = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1)).softmax(dim=1)
    truth = torch.randint(3, (4, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    truth[:, 0] = 255
    found = calibration(counted(probability, truth))
    top, label = probability[:, :, 1:].max(dim=1)
    right = label == truth[:, 1:]
    assert found.num_pixels.sum() == 4 * 7 * 8
    for place in range(20):
        inside = (top >= place / 20) & (top < (place + 1) / 20)
        assert found.num_pixels[place] == inside.sum()
        if inside.any():
            assert found.frequency[place] == pytest.approx(right[inside].double().mean().item(), abs=1e-12)
            assert found.probability[place] == pytest.approx(top[inside].double().mean().item(), abs=1e-7)


def test_nothing_counted():
    with pytest.raises(ValueError, match="there are no pixels to calibrate on"):
        calibration(CalibrationCounts())
    with pytest.raises(ValueError, match="there are no images to summarize"):
        threshold_sweep(CalibrationCounts())
