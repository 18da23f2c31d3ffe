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
