"""Putting trained weights into the package; `mhsvm.models.pretrained` finds them there."""

import csv
import hashlib
from dataclasses import astuple, fields
from pathlib import Path

import torch

from mhsvm.files import replace_when_complete
from mhsvm.models import pretrained
from mhsvm.models.checkpoint_file import read_checkpoint

# All of a checkpoint but what only resuming needs.
_PARTS = ("format", "schema", "config", "data", "version", "model")


def add_pretrained(checkpoint: Path, *, name: str, licence: str) -> pretrained.Pretrained:
    """Put a training's checkpoint into the package, without what only resuming needs; a row of this name is replaced.

    Args:
        checkpoint: `checkpoints/best.pt` of a run.
        name: To be asked for by; also the file's name.
        licence: Of the data that it was trained on.
    Raises:
        FileNotFoundError: There is no such checkpoint.
        ValueError: It is none of a training of ours, or the name is no file name.
    """
    content = read_checkpoint(checkpoint)
    missing = [part for part in _PARTS if part not in content]
    if missing:
        raise ValueError(f"{checkpoint} is no checkpoint of a training with mhsvm: it has no {', '.join(missing)}")
    if not name or Path(name).name != name:
        raise ValueError(f"weights are named like isic2017-wu-sorted, without folders; received {name!r}")
    path = pretrained.FOLDER / f"{name}.pt"
    with replace_when_complete(path) as partial:
        torch.save({part: content[part] for part in _PARTS}, partial)
    row = pretrained.Pretrained(
        name=name,
        model=content["config"]["model"]["name"],
        data=content["data"]["name"],
        split=content["data"]["split"],
        split_hash=content["data"]["split_hash"],
        licence=licence,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
    )
    rows = sorted(
        [other for other in pretrained.read_index() if other.name != name] + [row], key=lambda each: each.name
    )
    with (
        replace_when_complete(pretrained.FOLDER / "index.csv") as partial,
        partial.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([field.name for field in fields(pretrained.Pretrained)])
        writer.writerows(astuple(each) for each in rows)
    return row
