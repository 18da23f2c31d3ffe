"""The numbers that a test leaves."""

import csv
import json

import pytest
import torch

from mhsvm.metrics import class_counts, summarize
from mhsvm.report.tables import class_metrics, metrics_lines, result_line, write_cases, write_summary

# tp 6, fp 2, fn 1, tn 9 together
CONFUSION = torch.tensor([[[3, 1], [1, 3]], [[6, 1], [0, 3]]])
THREE_CLASSES = torch.tensor([[[1, 0, 0], [0, 1, 1], [1, 0, 2]], [[2, 1, 0], [0, 4, 0], [0, 0, 0]]])


def test_the_line_that_people_grep_for():
    line = result_line(0.123456, class_counts(CONFUSION), CONFUSION.sum(dim=0))
    assert line == (
        "test of best model, loss: 0.1235,miou: 0.666667, f1_or_dsc: 0.800000, accuracy: 0.833333, "
        "specificity: 0.818182, sensitivity: 0.857143, confusion_matrix: [[9, 2], [1, 6]]"
    )


def test_the_line_of_several_classes_has_the_whole_matrix():
    line = result_line(1.0, class_counts(THREE_CLASSES), THREE_CLASSES.sum(dim=0))
    assert line.endswith("confusion_matrix: [[3, 1, 0], [0, 5, 1], [1, 0, 2]]")
    assert "miou: 0.607143," in line  # (5/7 + 2/4) / 2


def test_pooled_and_per_image_figures_stand_side_by_side():
    lines = metrics_lines({"loss": 0.5, **summarize(class_counts(CONFUSION))})
    assert lines[0].split() == ["pooled", "per", "image"]
    assert [line.split() for line in lines[1:]] == [
        ["miou", "0.6667", "0.6750"],
        ["dsc", "0.8000", "0.8036"],
        ["accuracy", "0.8333", "0.8250"],
        ["sensitivity", "0.8571", "0.8750"],
        ["specificity", "0.8182", "0.8036"],
        ["jaccard_thresholded", "0.3750"],
    ]
    assert len({len(line) for line in lines}) == 1


def test_a_row_for_each_image(tmp_path):
    write_cases(tmp_path / "cases.csv", ["a", 'b,"c"'], class_counts(CONFUSION), num_classes=1)
    text = (tmp_path / "cases.csv").read_text()
    assert text.splitlines()[0] == "id,tp,fp,fn,tn,jaccard,dice,accuracy,sensitivity,specificity"
    rows = list(csv.DictReader(text.splitlines()))
    assert [row["id"] for row in rows] == ["a", 'b,"c"']
    assert [rows[0][name] for name in ("tp", "fp", "fn", "tn")] == ["3", "1", "1", "3"]
    assert (float(rows[0]["jaccard"]), float(rows[1]["dice"])) == (3 / 5, 6 / 7)


def test_a_row_for_each_image_and_class(tmp_path):
    write_cases(tmp_path / "cases.csv", ["a", "b"], class_counts(THREE_CLASSES), num_classes=3)
    rows = list(csv.DictReader((tmp_path / "cases.csv").read_text().splitlines()))
    assert [(row["id"], row["class"]) for row in rows] == [("a", "1"), ("a", "2"), ("b", "1"), ("b", "2")]
    assert [rows[1][name] for name in ("tp", "fp", "fn", "tn")] == ["2", "1", "1", "2"]
    # class 2 is neither in the truth nor in the prediction of b
    assert (rows[3]["tp"], float(rows[3]["jaccard"])) == ("0", 1.0)


def test_two_classes_have_a_class_column_too(tmp_path):
    write_cases(tmp_path / "cases.csv", ["a", "b"], class_counts(CONFUSION), num_classes=2)
    assert (tmp_path / "cases.csv").read_text().startswith("id,class,tp")


def test_figures_of_each_class():
    counts = class_counts(THREE_CLASSES)
    metrics = class_metrics(counts)
    assert list(metrics) == ["1", "2"]
    assert metrics["2"]["miou"] == pytest.approx(2 / 4)
    assert summarize(counts)["miou"] == pytest.approx((metrics["1"]["miou"] + metrics["2"]["miou"]) / 2)


def test_a_summary_is_json_with_a_schema(tmp_path):
    write_summary(tmp_path / "summary.json", {"b": [1, 2.5], "a": None, "name": "Läsion"})
    content = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert content == {"schema": 1, "b": [1, 2.5], "a": None, "name": "Läsion"}
    assert list(content) == ["schema", "b", "a", "name"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_summary(tmp_path / "summary.json", {"loss": float("nan")})
