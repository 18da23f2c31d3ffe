"""Checkpoints: one file of tensors and plain types, written atomically.

format, schema      kind and version of the file
model               the weights
config              every setting of the run
data                name, checksum, size and split of the set, and the ids of each part
version             of mhsvm, its commit, and torch
training            state to resume from: optimizer, schedule, random states, position, history
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mhsvm.files import replace_when_complete
from mhsvm.models.checkpoint_checksum import add_checksum

FORMAT = "mhsvm-checkpoint"
SCHEMA = 1
# Tensors of up to this many elements are copied together; a network has hundreds of them.
_SMALL = 2**13


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file to make or replace.
        content: See `take_snapshot`.
    Raises:
        TypeError: A value is neither a tensor nor a plain type.
    """
    write_snapshot(path, take_snapshot(content))


def take_snapshot(content: dict) -> dict:
    """Copy the content of a checkpoint to the CPU, where no later step changes it.

    Args:
        content: Nested dictionaries and lists of tensors, numbers, strings and None.
    Raises:
        TypeError: A value is neither a tensor nor a plain type.
    """
    snapshot: dict = {"format": FORMAT, "schema": SCHEMA}
    for key, value in content.items():
        copies: list[tuple[Tensor, Tensor]] = []
        snapshot[key] = _plain(value, f"checkpoint[{key!r}]", copies)
        _fill(copies)
    return snapshot


def write_snapshot(path: str | Path, snapshot: dict) -> None:
    """Write a snapshot of `take_snapshot` atomically.

    Raises:
        OSError: It cannot be written.
    """
    with replace_when_complete(path) as partial:
        # given a path, torch would write the temporary name into the file
        with partial.open("wb") as file:
            try:
                torch.save(snapshot, file)
            except RuntimeError as error:
                # after an error of the disk, torch fails again on the missing data
                refused = error.__context__
                if not isinstance(refused, OSError):
                    raise
                raise OSError(refused.errno, refused.strerror, str(path)) from refused
        add_checksum(partial)


def is_ours(content: Mapping[str, object]) -> bool:
    """Whether the content of a file is that of one of our checkpoints."""
    return content.get("format") == FORMAT


def check_parts(content: Mapping[str, object], path: str | Path, *parts: str) -> None:
    """Check that a file is one of our checkpoints, and has these parts.

    Raises:
        ValueError: It is another file, was written by a later version, or lacks a part. The message lists its entries.
    """
    if not is_ours(content):
        held = ", ".join(str(key) for key in list(content)[:10]) or "nothing"
        raise ValueError(
            f"{path} is not a checkpoint of a training of this package: it holds {held}. If these are weights, give it "
            "as `model.weights` of a new training"
        )
    if content.get("schema") != SCHEMA:
        raise ValueError(
            f"{path} is a checkpoint of schema {content.get('schema')}; this version of mhsvm reads {SCHEMA}"
        )
    lacking = [part for part in parts if not isinstance(content.get(part), dict)]
    if lacking:
        raise ValueError(
            f"{path} is a checkpoint of this package without its {' and '.join(lacking)}: it was changed, or saved "
            "without them"
        )


def epochs_done(content: Mapping[str, Any], path: str | Path) -> int:
    """The number of epochs that a checkpoint's training has done.

    Raises:
        ValueError: The file cannot be resumed from; see `check_parts`.
    """
    check_parts(content, path, "training")
    progress = content["training"].get("progress")
    if not isinstance(progress, dict) or not isinstance(progress.get("epoch"), int):
        raise ValueError(f"{path} does not say how many epochs are done: it was changed, or saved without them")
    return progress["epoch"]


def _plain(value: object, where: str, copies: list[tuple[Tensor, Tensor]]) -> object:
    """Copy nested plain types with an empty tensor for each tensor; add each such pair to `copies`."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if isinstance(value, Tensor):
        copies.append((value.detach(), torch.empty(0, dtype=value.dtype)))
        return copies[-1][1]
    if isinstance(value, dict):
        value = dict(value) if isinstance(value, Counter) else value
        return {key: _plain(item, f"{where}[{key!r}]", copies) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{index}]", copies) for index, item in enumerate(value)]
    raise TypeError(f"{where} is a {type(value).__name__}; checkpoints hold tensors and plain types only")


def _fill(copies: Sequence[tuple[Tensor, Tensor]]) -> None:
    """Copy each first tensor to the CPU into the second; of a view only its own elements are copied."""
    together: dict[tuple, list[tuple[Tensor, Tensor]]] = {}
    for source, target in copies:
        # bytes may be the state of a generator, on which torch crashes if it is a view
        if source.is_floating_point() and source.numel() <= _SMALL and source.is_contiguous():
            together.setdefault((source.device, source.dtype), []).append((source, target))
        else:
            target.data = torch.empty_like(source, device="cpu").copy_(source)
    for group in together.values():
        # each copy from a GPU synchronizes: copy all together, and give each tensor its slice
        flat = torch.cat([source.view(-1) for source, _ in group]).cpu()
        offset = 0
        for source, target in group:
            target.data = flat.as_strided(source.shape, source.stride(), offset)
            offset += source.numel()
