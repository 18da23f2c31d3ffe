"""Checkpoints: one file of tensors and plain types, complete or not there.

format, schema      what kind of file this is
model               the weights
config              every setting of the run
data                name, checksum, size and split of the set, and the ids of each part
version             of mhsvm, its commit, and torch
training            what resuming needs: optimiser, schedule, random states, position, history
"""

import subprocess
from collections import Counter
from pathlib import Path

import torch

import mhsvm
from mhsvm.data.atomic import replace_when_complete

FORMAT = "mhsvm-checkpoint"
SCHEMA = 1


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file to make or replace.
        content: Nested dictionaries and lists of tensors, numbers, strings and None.
    Raises:
        TypeError: Something in it is neither a tensor nor a plain type.
    """
    plain = _plain({"format": FORMAT, "schema": SCHEMA, **content}, "checkpoint")
    # given a path, torch would write the temporary name into the file
    with replace_when_complete(path) as partial, partial.open("wb") as file:
        torch.save(plain, file)


def code_version() -> dict[str, str]:
    """Versions of mhsvm and torch, and the commit of a source checkout ("" where there is none)."""
    folder = Path(mhsvm.__file__).resolve().parents[1]
    commit = ""
    if (folder / ".git").exists():
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            commit = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            commit = ""
    return {"mhsvm": mhsvm.__version__, "commit": commit, "torch": str(torch.__version__)}


def _plain(value: object, where: str) -> object:
    if isinstance(value, torch.Tensor):
        # clone drops the rest of the storage that a view would drag along
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        value = dict(value) if isinstance(value, Counter) else value
        return {key: _plain(item, f"{where}[{key!r}]") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if value is None or type(value) in (bool, int, float, str):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold tensors and plain types only")
