"""Where a test goes, what it may replace, and what its tables say."""

import json
from pathlib import Path

import pytest
import torch

from mhsvm.evaluation.folder import check_replaceable, default_folder, write_tables, write_times
from mhsvm.metrics import CalibrationCounts, Scores


@pytest.mark.parametrize(
    ("checkpoint", "expected"),
    [
        ("results/run/checkpoints/best.pt", "results/run/tests/set-file-a-b.txt"),
        ("results/run/checkpoints/last.pt", "results/run/tests/set-file-a-b.txt-last"),
        ("weights/mine.pt", "results/mine/tests/set-file-a-b.txt"),
    ],
)
def test_a_test_lies_with_its_run(checkpoint, expected):
    assert default_folder(Path(checkpoint), "set-file:a b.txt") == Path(expected)


def test_only_a_test_is_replaced(tmp_path):
    check_replaceable(tmp_path / "new")
    check_replaceable(tmp_path)
    (tmp_path / "cases.csv").touch()
    with pytest.raises(FileExistsError, match="exists and is not the folder of a test: choose another one with --out"):
        check_replaceable(tmp_path)
    with pytest.raises(FileExistsError, match="is not the folder of a test"):
        check_replaceable(tmp_path / "cases.csv")
    (tmp_path / "summary.json").touch()
    check_replaceable(tmp_path)


def test_tables_of_both_sizes(tmp_path):
    calibration = CalibrationCounts()
    calibration.add(torch.tensor([[[[0.9, 0.1]]]]), torch.tensor([[[1, 0]]]))
    confusion = torch.tensor([[5, 1], [1, 3]])
    scores = Scores(("a",), torch.tensor([[[3, 1, 1, 5]]]))
    leakage = {
        "seen": ["a"],
        "num_images": {"every": 1, "unseen": 0},
        "metrics": {"every": {"dsc": 0.75}, "unseen": None},
    }
    described = {"model": {"name": "made"}, "leakage": leakage}
    lines = write_tables(
        tmp_path,
        scores,
        confusion,
        loss=0.5,
        num_classes=1,
        calibration=calibration,
        described=described,
        native=(scores, 2 * confusion, ((7, 9),)),
    )
    assert lines[-1].startswith("test of best model, loss: 0.5000,miou: 0.600000, f1_or_dsc: 0.750000")
    assert lines[-2].endswith("without those that are in training or have a near-duplicate there: none is left")
    assert lines[-3] == "expected calibration error 0.1000"
    assert "at native size:" in lines
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert list(summary)[-2:] == ["model", "leakage"]
    assert summary["metrics"]["loss"] == 0.5
    assert summary["confusion_matrix"] == [[5, 1], [1, 3]]
    assert summary["native"]["confusion_matrix"] == [[10, 2], [2, 6]]
    assert (tmp_path / "cases.csv").read_text().startswith("id,tp,fp,fn,tn,")
    assert (tmp_path / "cases_native.csv").read_text().splitlines()[1].startswith("a,7,9,3,1,1,5,")


def test_times_stand_apart(tmp_path):
    write_times(tmp_path, num_images=3, seconds=1.23456, memory_gib=None, device="made")
    assert json.loads((tmp_path / "times.json").read_text()) == {
        "num_images": 3,
        "seconds": 1.235,
        "memory_gib": None,
        "device": "made",
        "torch": torch.__version__,
    }
