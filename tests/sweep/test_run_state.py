"""The commands of a run in a sweep."""

from pathlib import Path

import pytest

from mhsvm.cli import test as test_command
from mhsvm.config import load_config
from mhsvm.sweep.check import SetToTest
from mhsvm.sweep.grid import GridRun
from mhsvm.sweep.run_state import RunState


@pytest.mark.parametrize("plugins", [[], ["own_mixer", "own_metric"]])
def test_a_test_names_the_plugins_of_the_config(plugins, tmp_path, monkeypatch):
    monkeypatch.setattr(RunState, "is_trained", lambda self: True)
    run = GridRun("seed0", "seed0", 0, None, (), load_config(None, ["run.plugins", ",".join(plugins)]))
    state = RunState(run, Path("own.yaml"), tmp_path, (SetToTest("lesions", "data/lesions.h5", "0"),))
    words = state.next_command().words
    arguments = test_command.parser().parse_args(words[words.index("test") + 1 :])
    assert arguments.plugins == plugins
    assert (arguments.data, arguments.checkpoint) == ("data/lesions.h5", str(tmp_path / "seed0/checkpoints/best.pt"))


@pytest.mark.parametrize(("asked", "recorded", "fits"), [("0", "32", True), ("32", "32", True), ("64", "32", False)])
def test_a_run_has_recorded_the_size_of_its_set(tmp_path, asked, recorded, fits):
    run = GridRun("seed0", "", 0, None, (), load_config(None, ["data.size", asked]))
    state = RunState(run, Path("own.yaml"), tmp_path, ())
    state.files.last.parent.mkdir(parents=True)
    state.files.last.touch()
    state.files.config.write_text(load_config(None, ["data.size", recorded]).dump())
    if fits:
        state.check_config()
    else:
        with pytest.raises(ValueError, match="was made with other settings than this sweep's"):
            state.check_config()
