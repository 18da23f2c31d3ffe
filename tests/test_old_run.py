"""A prepared set, a stopped run and a test of version be94339 load, resume and test as they did there.

Made there from 10 synthetic images of 32 x 32: `results/straight` is the same run without the stop.
"""

import csv
import json
import zipfile
from pathlib import Path

import pytest

import mhsvm
from mhsvm.cli.test import main as run_test
from mhsvm.cli.train import main as run_train
from mhsvm.store import PreparedSet

ARCHIVE = Path(__file__).parent / "data_be94339" / "run.zip"
# other processors round otherwise
CLOSE = {"rel": 1e-3, "abs": 1e-5}


@pytest.fixture
def old(tmp_path, monkeypatch):
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def history(run):
    return [json.loads(line) for line in Path(f"results/{run}/metrics.jsonl").read_text().splitlines()]


def test_a_stopped_run_resumes_and_is_tested_as_there(old):
    assert len(history("stopped")) == 1
    assert run_train(["--resume", "results/stopped"]) == 0
    for resumed, straight in zip(history("stopped"), history("straight"), strict=True):
        assert resumed == pytest.approx(straight, **CLOSE)
    assert run_test(["--d", "old", "--p", "results/stopped/checkpoints/best.pt", "--device", "cpu"]) == 0
    new, expected = (Path(f"results/{run}/tests/old-official") for run in ("stopped", "straight"))
    found, recorded = (json.loads((folder / "summary.json").read_text()) for folder in (new, expected))
    # tests of that version have no checksums, and fewer metrics
    assert found.keys() - {"checksums", "arguments", "ranking"} == recorded.keys()
    assert found["protocol"] == recorded["protocol"]
    # settings that are newer than the run have their defaults
    assert recorded["model"].items() <= found["model"].items()
    for name in ("loss", "accuracy", "specificity"):
        assert found["metrics"][name] == pytest.approx(recorded["metrics"][name], **CLOSE), name
    rows, recorded_rows = (
        list(csv.DictReader((folder / "cases.csv").read_text().splitlines())) for folder in (new, expected)
    )
    newer = ["boundary_iou", "nsd", "nsd_diagonal", "auc", "average_precision"]
    assert [list(row) for row in rows] == [[*row, *newer] for row in recorded_rows]
    for row, recorded_row in zip(rows, recorded_rows, strict=True):
        assert row["id"] == recorded_row["id"]
        assert int(row["tp"]) + int(row["fn"]) == int(recorded_row["tp"]) + int(recorded_row["fn"])


def test_the_functions_take_the_old_files(old):
    with PreparedSet.open("data/old.h5") as prepared:
        result = mhsvm.evaluate("results/stopped/checkpoints/last.pt", prepared, device="cpu", boundary=False)
        assert result.ids == tuple(prepared.ids[8:])
        # one image alone would leave a single value per group of this tiny network's norm
        predictions = mhsvm.predict(list(prepared.images([8, 9])), "results/stopped/checkpoints/best.pt", device="cpu")
    assert [prediction.mask.shape for prediction in predictions] == [(32, 32)] * 2
    assert len(mhsvm.train(resume="results/stopped").history) == 3
