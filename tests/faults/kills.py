"""Send KILL, TERM, INT, or STOP and CONT to a training at random moments: the finished run is equal bit for bit."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import torch

from mhsvm.cli.train import main
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.store import Sample, write_set
from mhsvm.training.run_folder import RunFolder
from tests.faults.outcomes import SILENT, TRACEBACK, UNCHANGED, Counts

SIGNALS = ("KILL", "TERM", "INT", "STOP")
# Exit status of a training that has saved after a signal, has finished before it, or is ended by it before its first
# step or after its last.
_ENDS = {"TERM": (143, 0, -signal.SIGTERM), "INT": (130, 0, -signal.SIGINT), "STOP": (0,), "KILL": (-signal.SIGKILL, 0)}
_CONFIG = """
run: {device: cpu, folder: results}
data: {set: data/made.h5, split: official}
train: {epochs: EPOCHS, batch_size: 4}
model:
  ultralight_vm_unet: {channels: "8,8,8,8,8,8", branches: 2, d_state: 2}
"""
_SECONDS_AT_MOST = 300
_KILLS_OF_A_RUN = 5


def run(*, count: int, seed: int, folder: Path, epochs: int = 60) -> Counts:
    """Interrupt trainings `count` times with each signal in turn, go on after each, and compare with one that was not.

    Args:
        count: Number of signals in all.
        seed: Seed of their moments.
        folder: A folder for the set and the runs.
        epochs: Length of each training.
    """
    _make_set(folder, epochs=epochs)
    generator, counts = random.Random(seed), {name: Counter() for name in SIGNALS}
    _finish(folder, "straight")
    expected = _content(folder / "results/straight")
    names = [SIGNALS[i % len(SIGNALS)] for i in range(count)]
    for number, start in enumerate(range(0, count, _KILLS_OF_A_RUN)):
        signals = names[start : start + _KILLS_OF_A_RUN]
        outcome = _interrupt(folder, f"broken{number}", signals, expected, generator)
        for name in signals:
            counts[name][outcome] += 1
    return counts


def _interrupt(folder: Path, name: str, signals: list[str], expected: list, generator: random.Random) -> str:
    files = RunFolder(folder / "results" / name)
    for each in signals:
        process = _train(folder, name)
        before = files.log.stat().st_size if files.log.is_file() else 0
        deadline = time.monotonic() + _SECONDS_AT_MOST
        # the moment is counted from the training's first line, since most of a start is the import of torch
        while process.poll() is None and not (files.log.is_file() and files.log.stat().st_size > before):
            assert time.monotonic() < deadline, f"{name} does not start"
            time.sleep(0.01)
        time.sleep(generator.uniform(0, 1.5))
        process.send_signal(getattr(signal, f"SIG{each}"))
        if each == "STOP":
            time.sleep(0.2)
            process.send_signal(signal.SIGCONT)
        status = process.wait(_SECONDS_AT_MOST)
        if status not in _ENDS[each]:
            print(f"{name}: status {status} after {each}")
            return TRACEBACK
    status = _finish(folder, name)
    if status != 0:
        print(f"{name}: status {status} at the end")
        return TRACEBACK
    return UNCHANGED if _content(files.path) == expected else SILENT


def _train(folder: Path, name: str) -> subprocess.Popen:
    """Start a process that trains a run."""
    return subprocess.Popen(
        [sys.executable, "-m", "mhsvm", "train", *_arguments(folder, name)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _finish(folder: Path, name: str) -> int:
    """Train a run to its end in this process, which saves the start of another, and return the exit status."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return main(_arguments(folder, name))
    finally:
        os.chdir(before)


def _arguments(folder: Path, name: str) -> list[str]:
    """Start a run, or go on with it; either way starts one again that has saved nothing."""
    begun = (folder / "results" / name / "checkpoints" / "last.pt").is_file()
    return ["--resume", f"results/{name}"] if begun else ["--config", "made.yaml", "run.name", name]


def _content(run_folder: Path) -> list:
    """Metrics and all weights and states of a finished run, without its name and the versions."""
    content: list = [(run_folder / "metrics.jsonl").read_bytes()]
    for name in ("last.pt", "best.pt"):
        checkpoint = read_checkpoint(run_folder / "checkpoints" / name)
        content.append(_plain([checkpoint["model"], checkpoint["training"]]))
    return content


def _plain(value: object) -> object:
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.contiguous().view(-1).numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _make_set(folder: Path, *, epochs: int) -> None:
    generator = np.random.default_rng(0)
    samples = []
    for row in range(12):
        mask = np.zeros((32, 32), np.uint8)
        top, left = generator.integers(2, 16, size=2)
        mask[top : top + 10, left : left + 10] = 255
        image = generator.integers(0, 256, (32, 32, 3), np.uint8)
        samples.append(Sample(f"case{row}", image, mask, (32, 32), ("train", "train", "val", "test")[row % 4]))
    (folder / "data").mkdir()
    write_set(
        folder / "data/made.h5", samples, name="made", size=(32, 32), num_classes=1, attributes={}, total=len(samples)
    )
    (folder / "made.yaml").write_text(_CONFIG.replace("EPOCHS", str(epochs)))
