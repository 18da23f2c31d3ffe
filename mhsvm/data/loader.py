"""Batches of a data set on the compute device.

Batches of a set in the memory of the device are indexed there. For a streamed set, threads copy the next batches into
page-locked memory while the device works, and the copies to the device are non-blocking.
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
# "auto" leaves the rest of the free memory to the network, its gradients and the optimizer.
_FRACTION_OF_FREE = 0.25
# A thread copies a batch of 32 images of 256 x 256 in about 2 ms.
_NUM_THREADS, _NUM_AHEAD = 2, 4
_GIB = 2**30

Loaded = TypeVar("Loaded")


class Batch(NamedTuple):
    """A batch with the values of the data set.

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
    """Memory for the images of a run.

    Attributes:
        device: Device of the data sets.
        reason: Explanation for the log.
    """

    device: torch.device
    reason: str


def choose_placement(num_bytes: int, device: torch.device, placement: str = "auto") -> Placement:
    """Choose whether data sets are kept on the compute device or streamed to it.

    Args:
        num_bytes: Memory of all sets of a run.
        device: Compute device; its present free memory counts.
        placement: "device", "stream", or "auto": the device if the sets take at most a quarter of its free memory.
    Raises:
        ValueError: The placement is unknown, or it is "device" and the sets are larger than the free memory.
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
    fits = num_bytes <= _FRACTION_OF_FREE * free
    if placement == "device" or (placement == "auto" and fits):
        return Placement(device, f"on {device} ({size} of {free / _GIB:.1f} GiB free)")
    why = "as set" if placement == "stream" else f"more than a quarter of the {free / _GIB:.1f} GiB free there"
    return Placement(torch.device("cpu"), f"streamed to {device} ({size}, {why})")


def iterate_batches(dataset: Dataset, rows: Tensor, *, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield batches of `rows` (n,), a CPU tensor, in this order; the last batch has the rest."""
    parts = rows.split(batch_size)
    if dataset.images.device.type == "cuda":
        return _indexed(dataset, rows, parts)
    if device.type == "cuda":
        return _streamed(dataset, parts, device)
    return (_gather(dataset, part, _mask_rows(dataset, part), part) for part in parts)


def upload(tensor: Tensor, device: torch.device) -> Tensor:
    """Copy a CPU tensor to a device without blocking."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _mask_rows(dataset: Dataset, rows: Tensor) -> Tensor:
    """Places of the masks of some images, on the CPU."""
    return rows if dataset.mask_rows is None else dataset.mask_rows[rows]


def _gather(dataset: Dataset, rows: Tensor, mask_rows: Tensor, cpu_rows: Tensor) -> Batch:
    images, masks = dataset.images.index_select(0, rows), dataset.masks.index_select(0, mask_rows)
    return Batch(images.permute(0, 3, 1, 2), masks, cpu_rows)


def _indexed(dataset: Dataset, rows: Tensor, parts: Sequence[Tensor]) -> Iterator[Batch]:
    sizes = [len(part) for part in parts]
    device_rows = upload(rows, dataset.images.device).split(sizes)
    mask_rows = device_rows
    if dataset.mask_rows is not None:
        mask_rows = upload(_mask_rows(dataset, rows), dataset.images.device).split(sizes)
    for part, masks, cpu_part in zip(device_rows, mask_rows, parts, strict=True):
        yield _gather(dataset, part, masks, cpu_part)


def _streamed(dataset: Dataset, parts: Sequence[Tensor], device: torch.device) -> Iterator[Batch]:
    def load(part: Tensor) -> tuple[Tensor, Tensor]:
        return _gather_locked(dataset.images, part), _gather_locked(dataset.masks, _mask_rows(dataset, part))

    for part, loaded in zip(parts, load_ahead(load, parts), strict=True):
        images, masks = (x.to(device, non_blocking=True) for x in loaded)
        yield Batch(images.permute(0, 3, 1, 2), masks, part)


def _gather_locked(source: Tensor, rows: Tensor) -> Tensor:
    target = torch.empty((len(rows), *source.shape[1:]), dtype=source.dtype, pin_memory=True)
    return torch.index_select(source, 0, rows, out=target)


def load_ahead(load: Callable[[Tensor], Loaded], parts: Sequence[Tensor]) -> Iterator[Loaded]:
    """Yield `load(part)` for each part in order, loaded by threads that work a few parts ahead."""
    pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="batches")
    try:
        ahead = deque(pool.submit(load, part) for part in parts[:_NUM_AHEAD])
        for i in range(len(parts)):
            loaded = ahead.popleft().result()
            if i + _NUM_AHEAD < len(parts):
                ahead.append(pool.submit(load, parts[i + _NUM_AHEAD]))
            yield loaded
    finally:
        # a caller that stops early does not wait for loads that it will not use
        pool.shutdown(wait=False, cancel_futures=True)
