"""Figures with intervals, for a summary and for a reader, and a row a case."""

import csv
import json
import math

import pytest
import torch

from mhsvm.evaluation.scores import absence_lines, describe_scores, metrics_lines, write_cases
from mhsvm.metrics import Scores, bootstrap_intervals, summarize

NAN = math.nan
COUNTS = torch.tensor([[[3, 1, 1, 3]], [[3, 1, 0, 6]]])
SCORES = Scores(("a", 'b,"c"'), COUNTS, torch.tensor([[[12.0, 2.5]], [[NAN, NAN]]]).double())
THREE_CLASSES = Scores(("a", "b"), torch.tensor([[[1, 0, 1, 4], [2, 1, 1, 2]], [[4, 1, 0, 5], [0, 0, 0, 6]]]))


def test_the_description_is_json_and_whole():
    described = json.loads(json.dumps(describe_scores(SCORES), allow_nan=False))
    assert described["metrics"] == summarize(SCORES.counts, SCORES.distances)
    expected = {name: list(limits) for name, limits in bootstrap_intervals(SCORES).items()}
    assert described["intervals"] == {
        "method": "percentile bootstrap over images",
        "confidence": 0.95,
        "resamples": 10000,
        "seed": 0,
        "limits": expected,
    }
    assert described["boundary"] == {"unit": "pixels", "images_without_outline": 1}
    assert "classes" not in described


def test_what_is_not_defined_is_null():
    described = describe_scores(Scores(("a",), COUNTS[:1], torch.full((1, 1, 2), NAN, dtype=torch.float64)))
    assert described["metrics"]["hd95_per_image"] is None
    assert described["intervals"]["limits"]["hd95_per_image"] == [None, None]
    assert metrics_lines(described)[-2].split() == ["assd,", "pixels", "-"]


def test_each_class_is_described_alone():
    described = describe_scores(THREE_CLASSES)
    assert list(described["classes"]) == ["1", "2"]
    assert described["mean_over"] == [1, 2]
    assert described["classes"]["2"]["metrics"]["miou"] == pytest.approx(2 / 4)
    mean = sum(alone["metrics"]["miou"] for alone in described["classes"].values()) / 2
    assert described["metrics"]["miou"] == pytest.approx(mean)
    assert "boundary" not in described
    assert metrics_lines(described)[-1] == "class 2: miou 0.5000, dsc 0.6667, dsc_per_image 0.8333"


# class 2 is in no target, and predicted in 3 pixels of one image
ABSENT = Scores(("a", "b"), torch.tensor([[[1, 0, 1, 4], [0, 3, 0, 3]], [[4, 1, 0, 5], [0, 0, 0, 10]]]))


def test_an_absent_class_is_marked_and_left_out_of_the_mean():
    described = json.loads(json.dumps(describe_scores(ABSENT), allow_nan=False))
    assert described["mean_over"] == [1]
    assert described["metrics"] == described["classes"]["1"]["metrics"] == summarize(ABSENT.counts[:, :1])
    absent = described["classes"]["2"]
    assert (absent["absent"], absent["predicted"]) == (True, {"pixels": 3, "images": 1})
    defined = {name: value for name, value in absent["metrics"].items() if value is not None}
    assert set(defined) == {"accuracy", "accuracy_per_image", "specificity", "specificity_per_image"}
    assert defined["specificity"] == 13 / 16
    assert absent["intervals"]["limits"]["dsc"] == [None, None]
    assert metrics_lines(described)[-3:] == [
        "mean over the classes that occur: 1",
        "class 1: miou 0.7143, dsc 0.8333, dsc_per_image 0.7778",
        "class 2: absent, predicted in 3 pixels of 1 images",
    ]
    assert absence_lines(ABSENT) == [
        "class 2 is absent from the ground truth of all 2 images, and left out of the mean over classes; predicted in "
        "3 pixels of 1 images"
    ]


def test_no_class_occurs():
    described = json.loads(json.dumps(describe_scores(ABSENT.of_class(2)), allow_nan=False))
    assert described["metrics"]["dsc"] == 0
    assert absence_lines(ABSENT.of_class(2)) == [
        "no ground truth of the 2 images shows a lesion; predicted in 3 pixels of 1 images"
    ]
    none = describe_scores(Scores(ABSENT.ids, ABSENT.counts[:, [1, 1]]))
    assert (none["mean_over"], none["metrics"]["dsc"]) == ([], None)
    assert "no class occurs: there is no mean" in metrics_lines(none)
    assert absence_lines(SCORES) == absence_lines(THREE_CLASSES) == []


def test_pooled_and_per_image_figures_stand_side_by_side():
    described = describe_scores(SCORES)
    described["metrics"] = {"loss": 0.5, **described["metrics"]}
    lines = metrics_lines(described)
    # of two images, the interval of a mean runs from the lower to the higher
    assert lines == [
        "                      pooled  95% interval     per image  95% interval",
        "miou                  0.6667  0.6000-0.7500       0.6750  0.6000-0.7500",
        "dsc                   0.8000  0.7500-0.8571       0.8036  0.7500-0.8571",
        "accuracy              0.8333  0.7500-0.9000       0.8250  0.7500-0.9000",
        "sensitivity           0.8571  0.7500-1.0000       0.8750  0.7500-1.0000",
        "specificity           0.8182  0.7500-0.8571       0.8036  0.7500-0.8571",
        "jaccard_thresholded                               0.3750  0.0000-0.7500",
        "hd95, pixels                                       12.00  12.00-12.00",
        "assd, pixels                                      2.5000  2.5000-2.5000",
        "images without hd95 and assd, because prediction or target is empty: 1",
    ]


def test_a_row_for_each_image(tmp_path):
    write_cases(tmp_path / "cases.csv", SCORES, num_classes=1)
    text = (tmp_path / "cases.csv").read_text()
    assert text.splitlines()[0] == "id,tp,fp,fn,tn,jaccard,dice,accuracy,sensitivity,specificity,hd95,assd"
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["id"] for row in rows] == ["a", 'b,"c"']
    assert [rows[0][name] for name in ("tp", "fp", "fn", "tn")] == ["3", "1", "1", "3"]
    assert (float(rows[0]["jaccard"]), float(rows[1]["dice"])) == (3 / 5, 6 / 7)
    assert (rows[0]["hd95"], rows[0]["assd"], rows[1]["hd95"]) == ("12.0", "2.5", "")


def test_a_row_for_each_image_and_class(tmp_path):
    write_cases(tmp_path / "cases.csv", THREE_CLASSES, num_classes=3)
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert [(row["id"], row["class"]) for row in rows] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert [rows[1][name] for name in ("tp", "fp", "fn", "tn")] == ["2", "1", "1", "2"]
    # class 2 is neither in the truth nor in the prediction of b
    assert (rows[3]["tp"], float(rows[3]["jaccard"])) == ("0", 1.0)


def test_two_classes_have_a_class_column_too_and_sizes_theirs(tmp_path):
    scores = Scores(SCORES.ids, SCORES.counts)
    write_cases(tmp_path / "cases.csv", scores, num_classes=2, sizes=[(24, 32), (5, 7)])
    lines = (tmp_path / "cases.csv").read_text().splitlines()
    assert lines[0] == "id,class,height,width,tp,fp,fn,tn,jaccard,dice,accuracy,sensitivity,specificity"
    assert lines[1].startswith("a,1,24,32,3,1,1,3,0.6,")
