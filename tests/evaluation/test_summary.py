"""The numbers that a test leaves."""

import json

import pytest
import torch

from mhsvm.evaluation.summary import read_summary, result_line, write_summary
from mhsvm.metrics import class_counts

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


def test_a_summary_is_json_with_a_schema(tmp_path):
    write_summary(tmp_path / "summary.json", {"b": [1, 2.5], "a": None, "name": "Läsion"})
    content = json.loads((tmp_path / "summary.json").read_text(encoding="utf-8"))
    assert list(content.pop("checksums")) == ["summary"]
    assert content == {"schema": 2, "b": [1, 2.5], "a": None, "name": "Läsion"}
    assert list(content) == ["schema", "b", "a", "name"]
    assert read_summary(tmp_path / "summary.json") == content
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_summary(tmp_path / "summary.json", {"loss": float("nan")})


@pytest.fixture
def measured(tmp_path):
    """A summary with two tables of cases."""
    for name in ("cases.csv", "cases_native.csv"):
        (tmp_path / name).write_text(f"id,dice\n{name},0.8125\n")
    write_summary(tmp_path / "summary.json", {"metrics": {"dsc": 0.8125}, "ids": ["é\u2028"]})
    return tmp_path


@pytest.mark.parametrize("name", ["cases.csv", "cases_native.csv", "summary.json"])
def test_a_changed_digit_is_noticed(measured, name):
    assert read_summary(measured / "summary.json")["metrics"] == {"dsc": 0.8125}
    text = (measured / name).read_text(encoding="utf-8")
    (measured / name).write_text(text.replace("0.8125", "0.9125"), encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name} changed after the measurement.*: test or score again"):
        read_summary(measured / "summary.json")


def test_older_summaries_have_no_checksums(measured):
    content = json.loads((measured / "summary.json").read_text(encoding="utf-8"))
    del content["checksums"]
    (measured / "summary.json").write_text(json.dumps(content))
    (measured / "cases.csv").write_text("id,dice\na,0.1\n")
    assert read_summary(measured / "summary.json") == content
