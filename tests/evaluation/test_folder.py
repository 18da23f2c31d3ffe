"""Where a test goes, what it may replace, and what its tables say."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mhsvm.data.split_file import Split
from mhsvm.evaluation import folder, testing
from mhsvm.evaluation.folder import RESULTS, default_folder, result_lines, write_result
from mhsvm.evaluation.image_score import SizedScores
from mhsvm.evaluation.protocol import Protocol
from mhsvm.evaluation.scores import describe_scores
from mhsvm.leakage.leaks import Leak
from mhsvm.leakage.seen_images import Leakage
from mhsvm.metrics import Scores
from mhsvm.store import PredictionSet, PredictionWriter, Sample, write_set


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
    RESULTS.check(tmp_path / "new")
    RESULTS.check(tmp_path)
    (tmp_path / "cases.csv").touch()
    with pytest.raises(FileExistsError, match="is not the folder of a test: choose another one with `folder`"):
        RESULTS.check(tmp_path)
    with pytest.raises(FileExistsError, match="is a file, not a folder"):
        RESULTS.check(tmp_path / "cases.csv")
    (tmp_path / "summary.json").write_text('{"schema": 1}')
    RESULTS.check(tmp_path)


@pytest.fixture
def result(tmp_path):
    """A result of one image, measured at both sizes, whose only image was seen in training."""
    image_id, size = "a", (8, 8)
    mask = np.zeros(size, np.uint8)
    mask[:4] = 255
    path = tmp_path / "made.h5"
    write_set(
        path,
        [Sample(image_id, np.zeros((*size, 3), np.uint8), mask, size)],
        name="made",
        size=size,
        num_classes=1,
        attributes={},
        total=1,
    )
    buffer = io.BytesIO()
    with PredictionWriter(buffer, set_name="made.h5", set_checksum="0", size=size, num_classes=1) as writer:
        writer.append([image_id], np.full((1, *size), 200, np.uint8))
    scores, confusion = Scores((image_id,), torch.tensor([[[3, 1, 1, 5]]])), torch.tensor([[5, 1], [1, 3]])
    native = SizedScores(scores, 2 * confusion, ((7, 9),))
    leakage = {
        "seen": [image_id],
        "num_images": {"every": 1, "unseen": 0},
        "metrics": {"every": {"dsc": 0.75}, "unseen": None},
    }
    summary = describe_scores(scores) | {
        "confusion_matrix": confusion.tolist(),
        "native": describe_scores(scores),
        "ranking": {
            "auc": 0.9,
            "average_precision": None,
            "limits": {"auc": [0.8, 1.0], "average_precision": [None] * 2},
        },
        "calibration": {"ece": 0.1},
        "leakage": leakage,
    }
    return testing.TestResult(
        scores=scores,
        native=native,
        raters=None,
        summary=summary,
        protocol=Protocol(Split("made", {image_id: "test"}), "made", None, None),
        leakage=Leakage((Leak(image_id, image_id, "same id", None),), path, None),
        set_path=path,
        num_classes=1,
        threshold=0.5,
        loss=0.5,
        predictions=buffer.getvalue(),
        gate_maps=None,
        times={"seconds": 1.235},
    )


def test_the_lines_for_a_reader(result):
    lines = result_lines(result)
    assert lines[-1].startswith("test of best model, loss: 0.5000,miou: 0.600000, f1_or_dsc: 0.750000")
    assert lines[-2].endswith("without those that are in training or have a near-duplicate there: none is left")
    assert lines[-3] == "expected calibration error 0.1000"
    assert lines[-4] == "over the pixels of all images: auc 0.9000 (0.8000-1.0000), average_precision -"
    assert "at native size:" in lines


def test_a_result_is_written_as_a_whole(result, tmp_path):
    write_result(result, tmp_path / "test")
    names = {path.name for path in (tmp_path / "test").iterdir()}
    tables = {"cases.csv", "cases_native.csv", "summary.json", "times.json"}
    assert names == {*tables, "predictions.h5", "figures", "leaks.csv", "leaks-1.png"}
    summary = json.loads((tmp_path / "test/summary.json").read_text())
    assert (summary["schema"], summary["confusion_matrix"]) == (2, [[5, 1], [1, 3]])
    assert (tmp_path / "test/cases.csv").read_text().startswith("id,tp,fp,fn,tn,")
    assert (tmp_path / "test/cases_native.csv").read_text().splitlines()[1].startswith("a,7,9,3,1,1,5,")
    assert json.loads((tmp_path / "test/times.json").read_text()) == {"seconds": 1.235}
    with PredictionSet.open(tmp_path / "test/predictions.h5") as predictions, result.open_predictions() as kept:
        assert predictions.ids == kept.ids == ("a",)
        assert np.array_equal(predictions.probability([0]), kept.probability([0]))


def test_a_failure_keeps_the_older_test(result, tmp_path, monkeypatch):
    write_result(result, tmp_path / "test")
    before = (tmp_path / "test/summary.json").read_bytes()

    def fail(*_):
        raise OSError("the disk is full")

    monkeypatch.setattr(folder, "write_case_images", fail)
    with pytest.raises(OSError, match="the disk is full"):
        write_result(result, tmp_path / "test")
    assert (tmp_path / "test/summary.json").read_bytes() == before
