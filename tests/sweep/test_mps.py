import json
import logging
import os
import stat
import sys
from pathlib import Path

import pytest

from mhsvm.sweep import mps
from mhsvm.sweep.mps import runs_at_once, share_gpus
from mhsvm.sweep.places import Place

CONTROL = """#!{python}
import json, os, sys
words = sys.stdin.read().strip()
own = {{name: os.environ.get(name) for name in ("CUDA_MPS_PIPE_DIRECTORY", "CUDA_VISIBLE_DEVICES")}}
with open({calls!r}, "a") as file:
    print(json.dumps([sys.argv[1:], words, own, os.path.isdir(own["CUDA_MPS_PIPE_DIRECTORY"])]), file=file)
if {broken}:
    sys.exit("no permission")
"""


@pytest.fixture
def control(tmp_path, monkeypatch):
    """Replace the control program of NVIDIA by a recorder; return a function that reads its calls."""
    calls = tmp_path / "calls"
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("CUDA_MPS_PIPE_DIRECTORY", raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(mps, "_DEFAULT_PIPES", tmp_path / "pipes")

    def install(*, broken: bool = False):
        program = tmp_path / "bin" / "nvidia-cuda-mps-control"
        program.parent.mkdir()
        program.write_text(CONTROL.format(python=sys.executable, calls=str(calls), broken=broken))
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        return lambda: [json.loads(line) for line in calls.read_text().splitlines()]

    return install


def test_each_gpu_with_several_runs_gets_a_service_for_as_long_as_they_last(control):
    read = control()
    one, two = Place("cuda:0", {"CUDA_VISIBLE_DEVICES": "GPU-a"}), Place("cuda:1", {"CUDA_VISIBLE_DEVICES": "3"})
    alone = Place("cuda:2", {"CUDA_VISIBLE_DEVICES": "4"})
    with share_gpus([one, two, alone, one, two]) as shared:
        folders = [place.environment.get("CUDA_MPS_PIPE_DIRECTORY") for place in shared]
        assert [place.device for place in shared] == ["cuda:0", "cuda:1", "cuda:2", "cuda:0", "cuda:1"]
        assert folders[0] == folders[3] != folders[1] == folders[4]
        assert shared[2] == alone
        # each service has its GPU alone, as number 0
        assert {place.environment["CUDA_VISIBLE_DEVICES"] for place in shared if place.device != "cuda:2"} == {"0"}
        assert [call[:2] for call in read()] == [[["-d"], ""]] * 2
    told = read()
    assert [call[:2] for call in told[2:]] == [[[], "quit"]] * 2
    assert {call[2]["CUDA_VISIBLE_DEVICES"] for call in told} == {"GPU-a", "3"}
    assert all(folder_is_there for *_, folder_is_there in told)
    assert not any(os.path.exists(folder) for folder in folders if folder)


def test_a_gpu_that_is_named_keeps_its_number(control, monkeypatch):
    control()
    with share_gpus([Place("cuda:1")] * 2) as shared:
        assert "CUDA_VISIBLE_DEVICES" not in shared[0].environment
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    with share_gpus([Place("cuda:1")] * 2) as shared:
        assert shared[0].environment["CUDA_VISIBLE_DEVICES"] == "0,1"


def test_runs_on_the_cpu_need_none(control):
    control(broken=True)
    places = [Place("cpu", {"OMP_NUM_THREADS": "1"})] * 2
    with share_gpus(places) as shared:
        assert shared == places


def test_a_service_that_does_not_start_is_reported_and_runs_alternate(control, caplog):
    control(broken=True)
    places = [Place("cuda:0", {"CUDA_VISIBLE_DEVICES": "2"})] * 2
    with caplog.at_level(logging.WARNING), share_gpus(places) as shared:
        assert shared == places
    assert "cuda:0: its runs take turns, since NVIDIA's MPS does not start: no permission" in caplog.text


def test_a_service_that_is_running_is_used(control, monkeypatch, tmp_path):
    places = [Place("cuda:0", {"CUDA_VISIBLE_DEVICES": "2"})] * 2
    assert not runs_at_once()
    (tmp_path / "pipes").mkdir()
    Path(tmp_path / "pipes" / "control").touch()
    assert runs_at_once()
    with share_gpus(places) as shared:
        assert shared == places


def test_without_nvidias_program_runs_take_turns(control, caplog):
    assert not runs_at_once()
    with caplog.at_level(logging.WARNING), share_gpus([Place("cuda:0")] * 2) as shared:
        assert shared == [Place("cuda:0")] * 2
    assert "runs take turns" in caplog.text
