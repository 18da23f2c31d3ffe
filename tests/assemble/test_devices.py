import pytest
import torch

from mhsvm.assemble import build_own_device, devices
from mhsvm.runtime.distributed import ALONE, World


def test_each_process_gets_a_gpu_of_its_machine(monkeypatch):
    chosen = []
    monkeypatch.setattr(devices, "build_device", lambda name: torch.device("cuda" if name == "auto" else name))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert build_own_device("auto", World(rank=3, size=4, local_rank=1)) == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert build_own_device("cpu", World(rank=3, size=4, local_rank=3)) == torch.device("cpu")
    assert build_own_device("cuda:0", ALONE) == torch.device("cuda:0")
    with pytest.raises(ValueError, match="run.device cuda:0 is one GPU, and this training has 4 processes"):
        build_own_device("cuda:0", World(rank=0, size=4))
    with pytest.raises(ValueError, match="this machine has 2 GPUs, too few for process 3 on it"):
        build_own_device("auto", World(rank=2, size=4, local_rank=2))
