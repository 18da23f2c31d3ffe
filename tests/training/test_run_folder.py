import json
import struct

import pytest
from tensorboardX.proto.event_pb2 import Event

from mhsvm.data.split_file import Split
from mhsvm.training.run_folder import Recorder, RunFolder

SPLIT = Split("made", {"a": "train"})


def test_an_unsaved_start_is_removed_and_nothing_else(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.remove_unsaved_start()
    run.create(config="", split=SPLIT)
    run.log.write_text("starting")
    run.remove_unsaved_start()
    assert not run.path.exists()

    for name in (
        "checkpoints/last.pt",
        "checkpoints/best.pt",
        "notes.txt",
        "tensorboard/mine.png",
        "tests/summary.json",
    ):
        run.create(config="", split=SPLIT)
        kept = run.path / name
        kept.parent.mkdir(exist_ok=True)
        kept.write_text("mine")
        run.remove_unsaved_start()
        assert kept.read_text() == "mine"
        assert run.config.is_file()
        with pytest.raises(FileExistsError, match="go on with `resume`"):
            run.create(config="", split=SPLIT)
        kept.unlink()
        if name.startswith("tests"):
            kept.parent.rmdir()
        run.remove_unsaved_start()
        assert not run.path.exists()


def test_a_start_of_a_killed_process_is_made_again(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(config="older: 1", split=SPLIT)
    run.split.unlink()
    (run.last.parent / ".last.pt.host-12.partial").write_text("half")
    run.tensorboard.mkdir()
    (run.tensorboard / "events.out.tfevents.1.host").write_text("")
    run.create(config="newer: 1", split=SPLIT)
    assert sorted(path.name for path in run.path.rglob("*")) == ["checkpoints", "config.yaml", "split.txt"]
    assert run.config.read_text() == "newer: 1"


def test_times_are_those_of_all_that_was_done(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("mhsvm.training.run_folder.time.perf_counter", lambda: clock[0])
    monkeypatch.setattr("mhsvm.training.run_folder.peak_memory", lambda: 1.5)
    run = RunFolder(tmp_path / "run")
    run.create(config="", split=SPLIT)
    history = [{"epoch": 1, "loss": 3.0}, {"epoch": 2, "loss": 2.0}]

    recorder = Recorder(run, [], epochs=2, hardware={"device": "card"})
    clock[0] += 5
    recorder.add(history[0])
    clock[0] += 2
    # stopped in the second epoch
    recorder.close()
    recorder = Recorder(run, history[:1], epochs=2, hardware={"device": "other card"})
    clock[0] += 4.5
    recorder.add(history[1])
    recorder.close()

    assert [json.loads(line) for line in run.metrics.read_text().splitlines()] == history
    assert [json.loads(line) for line in run.times.read_text().splitlines()] == [
        {"epoch": 1, "seconds": 5.0, "memory_gib": 1.5, "device": "card"},
        {"epoch": 2, "seconds": 2.0, "memory_gib": 1.5, "device": "card"},
        {"epoch": 2, "seconds": 4.5, "memory_gib": 1.5, "device": "other card"},
    ]


def test_tensorboard_has_the_curves_and_the_config(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(config="train:\n  epochs: 1\n", split=SPLIT)
    recorder = Recorder(run, [], epochs=1, hardware={})
    recorder.add({"epoch": 1, "val_loss": 3.0})
    recorder.close()
    (events,) = (run.path / "tensorboard").iterdir()
    values = {value.tag: value for event in read_events(events.read_bytes()) for value in event.summary.value}
    assert values["val_loss"].simple_value == 3.0
    assert values["config/text_summary"].tensor.string_val == [b"    train:\n      epochs: 1"]


def read_events(content):
    """Of each record: its length in eight bytes, a checksum in four, the event, a checksum in four."""
    while content:
        (length,) = struct.unpack_from("<Q", content)
        yield Event.FromString(content[12 : 12 + length])
        content = content[16 + length :]


def test_an_existing_run_folder_is_an_error(tmp_path):
    run = RunFolder(tmp_path / "run")
    run.create(config="", split=SPLIT)
    run.check_new()
    run.last.touch()
    with pytest.raises(FileExistsError, match="go on with `resume`"):
        RunFolder(tmp_path / "run").check_new()
