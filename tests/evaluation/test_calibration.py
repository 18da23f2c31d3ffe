"""What a summary says of probabilities."""

import json

import torch

from mhsvm.evaluation.calibration import describe_calibration
from mhsvm.metrics import CalibrationCounts


def test_curve_and_sweep():
    counts = CalibrationCounts()
    counts.add(torch.tensor([[[[0.12, 0.9]]]]), torch.tensor([[[1, 1]]], dtype=torch.uint8))
    content = json.loads(json.dumps(describe_calibration(counts, num_classes=1), allow_nan=False))
    bins = content["calibration"]["bins"]
    assert len(bins) == 20
    assert (bins[0]["low"], bins[0]["high"], bins[0]["probability"], bins[0]["frequency"]) == (0.0, 0.05, None, None)
    filled = [each for each in bins if each["num_pixels"]]
    assert [(round(each["probability"], 6), each["frequency"]) for each in filled] == [(0.12, 1.0), (0.9, 1.0)]
    assert abs(content["calibration"]["ece"] - (0.88 + 0.1) / 2) < 1e-6
    assert [figures["miou"] for figures in content["thresholds"]][:4] == [1.0, 1.0, 0.5, 0.5]
    assert len(content["thresholds"]) == 19


def test_several_classes_have_no_threshold():
    counts = CalibrationCounts()
    counts.add(torch.tensor([[0.5, 0.3, 0.2]]).view(1, 3, 1, 1), torch.zeros(1, 1, 1, dtype=torch.uint8))
    assert list(describe_calibration(counts, num_classes=3)) == ["calibration"]
