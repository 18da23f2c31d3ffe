import math

import pytest
import torch

from mhsvm.metrics import (
    BOUNDARY,
    Scores,
    bootstrap_intervals,
    boundary_distances,
    chosen_metrics,
    column_label,
    list_metrics,
    measure_masks,
    metric_columns,
    paired_differences,
    register_metric,
    summarize,
)
from mhsvm.metrics.registered import METRICS, MaskMetric


def area(pred, target):
    return float(pred.sum()) if target.any() else math.nan


@pytest.fixture
def with_area(registered):
    registered(METRICS, "area", MaskMetric(area, ("area",), "pixels"))


def masks(*areas):
    maps = torch.zeros(len(areas), 4, 4, dtype=torch.uint8)
    for row, size in enumerate(areas):
        maps[row].view(-1)[:size] = 1
    return maps


def test_boundary_distances_are_registered():
    assert list_metrics() == ("boundary",)
    assert metric_columns() == BOUNDARY
    assert column_label("hd95") == "hd95, pixels"
    assert column_label("unheard_of") == "unheard_of"


def test_a_metric_adds_a_column(with_area):
    pred, target = masks(1, 4, 7), masks(2, 4, 0)
    values = measure_masks(pred, target, metrics=list_metrics())
    assert metric_columns() == ("hd95", "assd", "area")
    torch.testing.assert_close(values[..., :2], boundary_distances(pred, target), rtol=0, atol=0, equal_nan=True)
    assert values[:2, 0, 2].tolist() == [1.0, 4.0]
    assert math.isnan(values[2, 0, 2])
    assert chosen_metrics(boundary=False) == ("area",)
    assert measure_masks(pred, target, metrics=("area",)).shape == (3, 1, 1)


def test_a_metric_of_several_classes_measures_each(with_area):
    pred = masks(3) + masks(1)
    values = measure_masks(pred, pred, metrics=("area",), num_classes=3)
    assert values.tolist() == [[[2.0], [1.0]]]


def test_means_and_intervals_have_the_metric_s_name(with_area):
    pred, target = masks(1, 4, 7), masks(2, 4, 0)
    values = measure_masks(pred, target, metrics=("area",))
    scores = Scores(
        ("a", "b", "c"), torch.tensor([[[1, 0, 1, 14]], [[4, 0, 0, 12]], [[0, 7, 0, 9]]]), values, ("area",)
    )
    assert scores.metrics()["area_per_image"] == 2.5
    assert scores.num_unbounded == 0
    assert bootstrap_intervals(scores, resamples=50)["area_per_image"][1] <= 4
    assert summarize(scores.counts, values, ("area",)) == scores.metrics()
    both = Scores(scores.ids, scores.counts, torch.cat([values + 1, values], dim=-1), ("area", "other"))
    differences = paired_differences(both, scores, resamples=50)
    assert differences["area_per_image"].value == 1.0
    assert "other_per_image" not in differences


def test_taken_and_unknown_names_are_errors(with_area):
    with pytest.raises(ValueError, match=r"metric 'area' is registered already, as .*; .*\.area needs another name"):
        register_metric("area")(area)
    with pytest.raises(ValueError, match="the columns of metric 'distance' are taken: hd95"):
        register_metric("distance", columns=("hd95",))(area)
    with pytest.raises(ValueError, match="unknown metric 'aera'; known: boundary, area. Did you mean 'area'"):
        measure_masks(masks(1), masks(1), metrics=("aera",))
