import math

import pytest
import torch

from mhsvm.metrics import (
    BOUNDARY,
    Scores,
    argument_line,
    bootstrap_intervals,
    boundary_distances,
    chosen_metrics,
    column_label,
    list_metrics,
    measure_masks,
    metric_arguments,
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
    assert list_metrics() == ("boundary", "boundary_iou", "nsd")
    assert metric_columns() == (*BOUNDARY, "boundary_iou", "nsd", "nsd_diagonal")
    assert metric_columns(["boundary"]) == BOUNDARY
    assert column_label("hd95") == "hd95, pixels"
    assert column_label("unheard_of") == "unheard_of"


def test_a_metric_adds_a_column(with_area):
    pred, target = masks(1, 4, 7), masks(2, 4, 0)
    values = measure_masks(pred, target, metrics=list_metrics())
    assert metric_columns() == ("hd95", "assd", "boundary_iou", "nsd", "nsd_diagonal", "area")
    torch.testing.assert_close(values[..., :2], boundary_distances(pred, target), rtol=0, atol=0, equal_nan=True)
    assert values[:2, 0, -1].tolist() == [1.0, 4.0]
    assert math.isnan(values[2, 0, -1])
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
    with pytest.raises(
        ValueError, match="unknown metric 'aera'; known: boundary, boundary_iou, nsd, area. Did you mean 'area'"
    ):
        measure_masks(masks(1), masks(1), metrics=("aera",))


def test_arguments_are_settings_with_defaults(registered):
    def wider(pred, target, *, factor=2.0):
        return factor * float(pred.sum())

    registered(METRICS, "wider", MaskMetric(wider, ("wider",), "", arguments={"factor": 2.0}))
    defaults = metric_arguments()
    assert defaults == {
        "boundary_iou": {"fraction": 0.02},
        "nsd": {"tolerance": 2.0, "fraction": 0.005},
        "wider": {"factor": 2.0},
    }
    chosen = metric_arguments(["nsd.tolerance=3", "wider.factor=0.5"])
    assert (chosen["nsd"], chosen["wider"]) == ({"tolerance": 3.0, "fraction": 0.005}, {"factor": 0.5})
    assert argument_line({"nsd": chosen["nsd"]}) == "nsd with tolerance 3, fraction 0.005"
    assert measure_masks(masks(3), masks(3), metrics=["wider"]).item() == 6.0
    assert measure_masks(masks(3), masks(3), metrics=["wider"], arguments=chosen).item() == 1.5
    # the defaults are not those of the last call
    assert metric_arguments() == defaults


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("nds.tolerance=3", "unknown metric 'nds'"),
        (
            "boundary.width=3",
            r"one of boundary_iou\.fraction, nsd\.tolerance, nsd\.fraction, with its value: .*not 'bound",
        ),
        ("nsd=3", "not 'nsd=3'"),
        ("nsd.tolerance", r"nsd\.tolerance is a number from 0 on, not ''"),
        ("nsd.tolerance=-1", "not '-1'"),
        ("nsd.tolerance=nan", "not 'nan'"),
    ],
)
def test_settings_that_are_none(setting, message):
    with pytest.raises(ValueError, match=message):
        metric_arguments([setting])


def test_names_and_arguments_of_a_metric_are_checked():
    with pytest.raises(ValueError, match="the columns of metric 'auc' are taken: auc"):
        register_metric("auc")(area)
    with pytest.raises(ValueError, match="has a number as its default; depth has none"):
        register_metric("deep")(lambda pred, target, *, depth: 0.0)
