import pytest
import torch

from mhsvm.sweep import places
from mhsvm.sweep.places import SMALL_NETWORK, Place, find_places


@pytest.fixture
def machine(monkeypatch):
    """A function that pretends a number of GPUs and processors."""

    def pretend(gpus: int, processors: int, visible: str | None = None) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        monkeypatch.setattr(places, "num_cores", lambda: processors)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        monkeypatch.delenv("TORCHINDUCTOR_COMPILE_THREADS", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return pretend


def test_the_cpu_takes_one_run_at_a_time_with_all_its_threads(machine):
    machine(gpus=0, processors=8)
    assert find_places("auto", per_device=None, num_parameters=10, at_once=True) == [Place("cpu")]


def test_runs_side_by_side_share_the_threads(machine):
    machine(gpus=0, processors=8)
    threads = {"OMP_NUM_THREADS": "2", "TORCHINDUCTOR_COMPILE_THREADS": "2"}
    assert find_places("cpu", per_device=3, num_parameters=10, at_once=True) == [Place("cpu", threads)] * 3


def test_large_networks_get_a_gpu_each(machine):
    machine(gpus=2, processors=64, visible="3,GPU-abc")
    assert find_places("auto", per_device=None, num_parameters=SMALL_NETWORK, at_once=True) == [
        Place("cuda:0", {"CUDA_VISIBLE_DEVICES": "3"}),
        Place("cuda:1", {"CUDA_VISIBLE_DEVICES": "GPU-abc"}),
    ]


@pytest.mark.parametrize(
    ("processors", "at_once", "side_by_side"),
    [(64, True, 8), (32, True, 8), (12, True, 3), (4, True, 1), (1, True, 1), (64, False, 2), (4, False, 1)],
)
def test_small_networks_share_a_gpu_as_far_as_the_processors_go(machine, processors, at_once, side_by_side):
    machine(gpus=2, processors=processors)
    found = find_places("cuda", per_device=None, num_parameters=SMALL_NETWORK - 1, at_once=at_once)
    assert len(found) == 2 * side_by_side
    # one on each before a second one on any
    assert [place.device for place in found[:2]] == ["cuda:0", "cuda:1"]
    assert {place.environment["CUDA_VISIBLE_DEVICES"] for place in found} == {"0", "1"}


def test_a_device_that_is_named_is_the_only_one(machine):
    machine(gpus=4, processors=16)
    assert find_places("cuda:2", per_device=1, num_parameters=10, at_once=True) == [Place("cuda:2")]
    assert find_places("cpu", per_device=None, num_parameters=10, at_once=True) == [Place("cpu")]


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("cuda:2", "run.device cuda:2 does not exist: 2 GPUs are visible"),
        ("gpu", "run.device 'gpu' is no device: take auto, cpu or cuda:0"),
    ],
)
def test_a_device_that_is_not_there_is_an_error(device, message, machine):
    machine(gpus=2, processors=8)
    with pytest.raises(ValueError, match=message):
        find_places(device, per_device=None, num_parameters=10, at_once=True)


def test_threads_that_are_set_stay(machine, monkeypatch):
    machine(gpus=0, processors=8)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    environment = find_places("cpu", per_device=2, num_parameters=10, at_once=True)[0].environment
    assert environment == {"OMP_NUM_THREADS": "3", "TORCHINDUCTOR_COMPILE_THREADS": "4"}
