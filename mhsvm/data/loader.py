"""Batches of a data set on the device that computes."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from mhsvm.data.dataset import Dataset


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


def iterate_batches(dataset: Dataset, rows: Tensor, *, batch_size: int, device: torch.device) -> Iterator[Batch]:
    """Yield the images of `rows` (n,) in that order; the last batch holds what is left."""
    for batch_rows in rows.split(batch_size):
        yield Batch(
            images=dataset.images[batch_rows].to(device).permute(0, 3, 1, 2),
            masks=dataset.masks[batch_rows].to(device),
            rows=batch_rows,
        )
