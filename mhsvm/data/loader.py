"""Batches of a data set on the device that computes.

A set that lies on the device gives its batches by index. Of one that is streamed, threads copy the next batches into
page-locked memory while the device works, and the device fetches them without anybody waiting.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from mhsvm.data.dataset import Dataset

PLACEMENTS = ("auto", "device", "stream")
# "auto" leaves the rest of what is free to the network, its gradients and the optimiser.
_SHARE_OF_FREE = 0.25
# One thread copies a batch of 32 images of 256 x 256 in about 2 ms.
_NUM_THREADS, _NUM_AHEAD = 2, 4
_GIB = 2**30

Loaded = TypeVar("Loaded")


class Batch(NamedTuple):
    """A batch as it leaves the data set: no value is changed yet.

    Attributes:
        images: uint8 (b, 3, h, w).
        masks: uint8 (b, h, w).
        rows: int64 (b,), positions in the data set, on the CPU.
    """

    images: Tensor
    masks: Tensor
    rows: Tensor


@dataclass(frozen=True)
class Placement:
    """Where the images of a run lie.

    Attributes:
        device: Of the data sets.
        reason: In words, for the log.
    """

    device: torch.device
    reason: str


def choose_placement(num_bytes: int, device: torch.device, placement: str = "auto") -> Placement:
    """Choose whether data sets lie on the device that computes, or are streamed to it.

    Args:
        num_bytes: Of all the sets of a run.
        device: The one that computes; its free memory is measured now.
        placement: "device", "stream", or "auto": on the device if the sets take at most a quarter of what is free.
    Raises:
        ValueError: There is no such placement, or the sets are larger than what is free and "device" is asked for.
    """
    if placement not in PLACEMENTS:
        raise ValueError(f"data.placement is one of {', '.join(PLACEMENTS)}, not {placement!r}")
    size = f"{num_bytes / _GIB:.2f} GiB"
    if device.type != "cuda":
        return Placement(torch.device("cpu"), f"in memory ({size})")
    free, _ = torch.cuda.mem_get_info(device)
    if placement == "device" and num_bytes > free:
        raise ValueError(
            f"the images take {size} and {free / _GIB:.2f} GiB are free on {device}: set data.placement auto, or stream"
        )
    fits = num_bytes <= _SHARE_OF_FREE * free
    if placement == "device" or (placement == "auto" and fits):
        return Placement(device, f"on {device} ({size} of {free / _GIB:.1f} GiB free)")
    why = "asked for" if placement == "stream" else f"more than a quarter of the {free / _GIB:.1f} GiB free there"
    return Placement(torch.device("cpu"), f"streamed to {device} ({size}, {why})")


def iterate_batches(dataset: Dataset, rows: Tensor, *, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the images of `rows` (n,), on the CPU, in that order; the last batch holds what is left."""
    parts = rows.split(batch_size)
    if dataset.images.device.type == "cuda":
        return _indexed(dataset, rows, parts)
    if device.type == "cuda":
        return _streamed(dataset, parts, device)
    return (_gather(dataset, part, part) for part in parts)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on a device; nobody waits for the copy."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _gather(dataset: Dataset, rows: Tensor, cpu_rows: Tensor) -> Batch:
    images, masks = dataset.images.index_select(0, rows), dataset.masks.index_select(0, rows)
    return Batch(images.permute(0, 3, 1, 2), masks, cpu_rows)


def _indexed(dataset: Dataset, rows: Tensor, parts: Sequence[Tensor]) -> Iterator[Batch]:
    there = upload(rows, dataset.images.device).split([len(part) for part in parts])
    for part, cpu_part in zip(there, parts, strict=True):
        yield _gather(dataset, part, cpu_part)


def _streamed(dataset: Dataset, parts: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
    def load(part: Tensor) -> tuple[Tensor, Tensor]:
        return _gather_locked(dataset.images, part), _gather_locked(dataset.masks, part)

    for part, loaded in zip(parts, load_ahead(load, parts), strict=True):
        images, masks = (x.to(device, non_blocking=True) for x in loaded)
        yield Batch(images.permute(0, 3, 1, 2), masks, part)


def _gather_locked(source: Tensor, rows: Tensor) -> Tensor:
    target = torch.empty((len(rows), *source.shape[1:]), dtype=source.dtype, pin_memory=True)
    return torch.index_select(source, 0, rows, out=target)


def load_ahead(load: Callable[[Tensor], Loaded], parts: Sequence[Tensor]) -> Iterator[Loaded]:
    """Yield `load(part)` of each part in order, from threads that are a few parts ahead."""
    pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="batches")
    try:
        ahead = deque(pool.submit(load, part) for part in parts[:_NUM_AHEAD])
        for i in range(len(parts)):
            loaded = ahead.popleft().result()
            if i + _NUM_AHEAD < len(parts):
                ahead.append(pool.submit(load, parts[i + _NUM_AHEAD]))
            yield loaded
    finally:
        # who stops half-way does not wait for what nobody will read
        pool.shutdown(wait=False, cancel_futures=True)
