"""Training in processes that torchrun starts, one of which is killed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mhsvm.cli.train import main
from mhsvm.models.checkpoint_file import read_checkpoint

CONFIG = """
run: {device: cpu}
data: {set: lesions, split: official}
train: {epochs: 6, batch_size: 3, accumulation: 2, clip_norm: 0.5, ema_decay: 0.5}
model:
  ultralight_vm_unet: {channels: "8,8,8,8,8,8", branches: 2, d_state: 2}
"""

# The command `mhsvm train`, whose second process kills itself in the first step of the third epoch; when torchrun has
# started both again, it gets the signal to stop at the end of the fourth.
PROGRAM = """
import os, signal, sys
from mhsvm.cli.main import run
from mhsvm.cli.train import main
from mhsvm.runtime.distributed import World

count, any_of_all = [0], World.any
steps = {"0": (5, signal.SIGKILL), "1": (4, signal.SIGTERM)}

def counting(world, flag):
    count[0] += 1
    number, signum = steps[os.environ["TORCHELASTIC_RESTART_COUNT"]]
    if world.rank == 1 and count[0] == number:
        os.kill(os.getpid(), signum)
    return any_of_all(world, flag)

World.any = counting
raise SystemExit(run(main))
"""


def test_a_killed_process_a_restart_a_stop_and_another_number_of_processes_change_nothing(config):
    assert main(["--config", str(config), "run.name", "straight"]) == 0
    Path("program.py").write_text(PROGRAM)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=1"]
    command = [sys.executable, *launcher, "program.py", "--config", str(config), "run.name", "broken"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert ended.returncode != 0
    last = Path("results/broken/checkpoints/last.pt")
    assert "starting results/broken" in ended.stdout
    assert "resuming results/broken" in ended.stdout
    assert "2 processes share each batch" in ended.stdout
    progress = read_checkpoint(last)["training"]["progress"]
    assert (progress["epoch"], progress["position"]) == (4, 6)
    assert "stopped in epoch 5 after 6 of 9 images" in ended.stdout
    assert ended.stdout.count("epoch 3/6") == 1

    assert main(["--resume", "results/broken"]) == 0
    figures = [
        [json.loads(line) for line in Path("results", name, "metrics.jsonl").read_text().splitlines()]
        for name in ("straight", "broken")
    ]
    assert [line["epoch"] for line in figures[1]] == [1, 2, 3, 4, 5, 6]
    for straight, broken in zip(*figures, strict=True):
        assert broken == pytest.approx(straight, rel=1e-5)
