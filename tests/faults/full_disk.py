"""Refuse more bytes in a file than a random limit, as a full disk does: a command ends with one message and status 1.

Each command runs in a process of its own, since HDF5 writes again, and can crash, when a process ends.
"""

import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

from tests.faults.outcomes import REFUSED, SILENT, TRACEBACK, UNCHANGED, Counts

_CONFIG = """
run: {device: cpu, name: made}
data: {set: lesions.h5, split: ratio-60-20-20-1}
train: {epochs: 1, batch_size: 4}
model: {ultralight_vm_unet: {channels: "8,8,8,8,8,8", branches: 2, d_state: 2}}
"""
_LIMITED = """
import resource, sys
limit = int(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
from mhsvm.cli.main import main
sys.exit(main(sys.argv[2:]))
"""
_BEST = "results/made/checkpoints/best.pt"

# Arguments of each command, and the file or folder that it makes. Each needs the results of those before it.
COMMANDS = {
    "prepare": (["prepare", "folder", "--source", "drawn", "--out", "lesions.h5", "--size", "64"], "lesions.h5"),
    "train": (["train", "--config", "config.yaml"], "results/made"),
    "test": (["test", "--checkpoint", _BEST, "--data", "lesions.h5", "--device", "cpu", "--out", "tested"], "tested"),
    "predict": (
        ["predict", "--checkpoint", _BEST, "--source", "drawn/images", "--device", "cpu", "--out", "predicted"],
        "predicted",
    ),
    "report": (["report", "tested", "--out", "report.html"], "report.html"),
}


def run(*, count: int, seed: int, folder: Path, commands: tuple[str, ...] = tuple(COMMANDS)) -> Counts:
    """Run each command with `count` limits.

    Args:
        count: Number of limits for each command.
        seed: Seed of the limits.
        folder: A folder for the files.
        commands: The first commands of `COMMANDS`.
    """
    (folder / "config.yaml").write_text(_CONFIG)
    assert (
        _run(
            folder, ["synthesize", "--layout", "folder", "--out", "drawn", "--num", "12", "--size", "64"], 2**30
        ).returncode
        == 0
    )
    return {name: _limit(folder, *COMMANDS[name], count=count, seed=seed) for name in commands}


def _limit(folder: Path, arguments: list[str], out: str, *, count: int, seed: int) -> Counter:
    done = _run(folder, arguments, 2**30)
    assert done.returncode == 0, done.stderr
    sizes = [path.stat().st_size for path in [folder / out, *(folder / out).rglob("*")] if path.is_file()]
    shutil.move(folder / out, folder / "kept")
    generator, counts = random.Random(seed), Counter()
    for _ in range(count):
        result = _run(folder, arguments, generator.randrange(max(sizes)))
        counts[_outcome(folder, out, result)] += 1
        _remove(folder / out)
    shutil.move(folder / "kept", folder / out)
    return counts


def _outcome(folder: Path, out: str, result: subprocess.CompletedProcess) -> str:
    if "Traceback" in result.stderr or result.returncode not in (0, 1, 2):
        return TRACEBACK
    if result.returncode == 0:
        # a file that may be left out, such as a cache
        return UNCHANGED if (folder / out).exists() else SILENT
    partial = list(folder.rglob("*.partial"))
    return REFUSED if "File too large" in result.stderr and not partial else SILENT


def _run(folder: Path, arguments: list[str], limit: int) -> subprocess.CompletedProcess:
    root = str(Path(__file__).parents[2])
    environment = {**os.environ, "PYTHONPATH": root, "XDG_CACHE_HOME": str(folder / "cache")}
    command = [sys.executable, "-c", _LIMITED, str(limit), *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
