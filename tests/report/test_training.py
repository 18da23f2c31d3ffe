"""Trainings read from their run folders."""

import json

import pytest

from mhsvm.config import load_config
from mhsvm.report.training import TrainingCost, format_duration, read_cost, read_test_times, read_training


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "config.yaml").write_text(load_config(None, ("train.epochs", "7")).dump())
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "val_loss": 0.5}\n')
    lines = [
        {"epoch": 1, "seconds": 2.5, "memory_gib": 1.5, "device": "Card", "processes": 2, "torch": "9"},
        {"epoch": 2, "seconds": 1.0, "memory_gib": None, "device": "Processor", "processes": 1, "torch": "9"},
    ]
    (folder / "times.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_a_training_is_read(run):
    training = read_training(run)
    assert (training.name, training.epochs, training.history) == ("run", 7, ({"epoch": 1, "val_loss": 0.5},))
    assert "epochs: 7" in training.config
    assert training.cost == TrainingCost(3.5, 1.5, "2 x Card, Processor, torch 9")


def test_times_of_older_runs(run):
    (run / "times.jsonl").write_text('{"epoch": 1, "seconds": 2, "device": "Card", "processes": 1, "torch": "9"}\n')
    assert read_cost(run / "times.jsonl") == TrainingCost(2, None, "Card, torch 9")
    (run / "times.jsonl").unlink()
    assert read_cost(run / "times.jsonl") == TrainingCost(None, None, "")


def test_a_damaged_file_is_named(run):
    metrics = run / "metrics.jsonl"
    metrics.write_text('{"epoch": 1}\n{"epo')
    assert read_training(run).history == ({"epoch": 1},)
    metrics.write_text('{"epoch": 1}\n{}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is damaged: it has no epoch"):
        read_training(run)
    metrics.write_text('{"epo\n{"epoch": 2}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 1, is damaged"):
        read_training(run)


def test_times_of_a_test(run):
    times = {"num_images": 2, "seconds": 3.5, "device": "card", "torch": "2.14"}
    (run / "times.json").write_text(json.dumps(times))
    assert read_test_times(run / "times.json") == times
    (run / "times.json").write_text("{}")
    with pytest.raises(ValueError, match=r"times\.json is damaged \(it has no device, num_images"):
        read_test_times(run / "times.json")
    assert read_test_times(run / "nothing.json") is None


def test_durations():
    assert [format_duration(seconds) for seconds in (9.4, 60, 3599.6)] == ["9 s", "1 min 0 s", "1 h 0 min"]
