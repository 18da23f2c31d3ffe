"""Checkpoints: one file of tensors and plain types, complete or not there.

format, schema      kind and version of the file
model               the weights
config              every setting of the run
data                name, checksum, size and split of the set, and the ids of each part
version             of mhsvm, its commit, and torch
training            state to resume from: optimizer, schedule, random states, position, history
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from mhsvm.files import replace_when_complete

FORMAT = "mhsvm-checkpoint"
SCHEMA = 1
# Elements of tensors that are copied together: hundreds of a network's are smaller.
_SMALL = 2**13


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write a checkpoint atomically.

    Args:
        path: The file to make or replace.
        content: See `take_snapshot`.
    Raises:
        TypeError: Something in it is neither a tensor nor a plain type.
    """
    write_snapshot(path, take_snapshot(content))


def take_snapshot(content: dict) -> dict:
    """Copy the content of a checkpoint to the CPU, where no later step changes it.

    Args:
        content: Nested dictionaries and lists of tensors, numbers, strings and None.
    Raises:
        TypeError: Something in it is neither a tensor nor a plain type.
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
    # given a path, torch would write the temporary name into the file
    with replace_when_complete(path) as partial, partial.open("wb") as file:
        try:
            torch.save(snapshot, file)
        except RuntimeError as error:
            # after an error of the disk, torch fails again on the missing data
            refused = error.__context__
            if not isinstance(refused, OSError):
                raise
            raise OSError(refused.errno, refused.strerror, str(path)) from refused


def _plain(value: object, where: str, copies: list[tuple[Tensor, Tensor]]) -> object:
    """The same of plain types; of each tensor a pair is added to `copies`: itself, and an empty one in its place."""
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
    """Copy tensors to the CPU, into the empty ones beside them, without the storage that a view would drag along."""
    together: dict[tuple, list[tuple[Tensor, Tensor]]] = {}
    for source, target in copies:
        # bytes may be a generator's state: torch crashes on one that is a part of something else
        if source.is_floating_point() and source.numel() <= _SMALL and source.is_contiguous():
            together.setdefault((source.device, source.dtype), []).append((source, target))
        else:
            target.set_(torch.empty_like(source, device="cpu").copy_(source))
    for group in together.values():
        # each copy from a GPU waits for it: one for all, of which each tensor gets its part
        flat = torch.cat([source.view(-1) for source, _ in group]).cpu()
        offset = 0
        for source, target in group:
            target.set_(flat, offset, source.shape, source.stride())
            offset += source.numel()
