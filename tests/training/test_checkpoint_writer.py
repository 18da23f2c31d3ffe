"""Checkpoints in a thread: copied at once, complete at the end, no error lost."""

import threading

import pytest
import torch

from mhsvm.training import checkpoint_writer
from mhsvm.training.checkpoint_writer import CheckpointWriter


def read(path):
    return torch.load(path, weights_only=True)


def test_what_is_saved_is_as_it_was_and_there_at_the_end(tmp_path):
    weight, history = torch.zeros(3), [1]
    with CheckpointWriter() as writer:
        writer.save([tmp_path / "best.pt", tmp_path / "last.pt"], {"model": {"w": weight}, "history": history})
        weight += 1
        history.append(2)
        writer.save([tmp_path / "last.pt"], {"model": {"w": weight}, "history": history})
    best, last = read(tmp_path / "best.pt"), read(tmp_path / "last.pt")
    assert (best["model"]["w"].tolist(), best["history"]) == ([0, 0, 0], [1])
    assert (last["model"]["w"].tolist(), last["history"]) == ([1, 1, 1], [1, 2])


def test_the_training_goes_on_meanwhile(tmp_path, monkeypatch):
    original, may_write = checkpoint_writer.write_snapshot, threading.Event()

    def write_late(path, snapshot):
        assert may_write.wait(timeout=20)
        original(path, snapshot)

    monkeypatch.setattr(checkpoint_writer, "write_snapshot", write_late)
    with CheckpointWriter() as writer:
        writer.save([tmp_path / "last.pt"], {"value": 1})
        assert not (tmp_path / "last.pt").exists()
        may_write.set()
    assert read(tmp_path / "last.pt")["value"] == 1


def test_what_cannot_be_written_is_told_by_the_next_save(tmp_path):
    (tmp_path / "file").touch()
    with CheckpointWriter() as writer:
        writer.save([tmp_path / "file" / "last.pt"], {"value": 1})
        with pytest.raises(OSError, match="file"):
            writer.save([tmp_path / "last.pt"], {"value": 2})
        writer.save([tmp_path / "last.pt"], {"value": 3})
    assert read(tmp_path / "last.pt")["value"] == 3


def save_to(path):
    with CheckpointWriter() as writer:
        writer.save([path], {"value": 1})


def test_or_by_the_end(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        save_to(tmp_path / "file" / "last.pt")


def test_what_does_not_belong_in_a_checkpoint_is_refused_at_once(tmp_path):
    with CheckpointWriter() as writer, pytest.raises(TypeError, match=r"checkpoint\['value'\] is a set"):
        writer.save([tmp_path / "last.pt"], {"value": {1}})
    assert not (tmp_path / "last.pt").exists()
