"""A part of a prepared set as uint8 tensors in the memory of a CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mhsvm.store import PreparedSet


@dataclass(frozen=True)
class Dataset:
    """Images and masks.

    Attributes:
        ids: Ids of the n images.
        images: uint8 (n, h, w, 3).
        masks: uint8 (n, h, w): lesion coverage 0..255, or class indices with 255 = ignore.
        num_classes: 1 for coverage masks, else the number of classes.
    """

    ids: tuple[str, ...]
    images: Tensor
    masks: Tensor
    num_classes: int = 1

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_bytes(self) -> int:
        """Memory of images and masks."""
        return self.images.nbytes + self.masks.nbytes

    @property
    def absent_classes(self) -> tuple[int, ...]:
        """Classes from 1 on that no mask holds; with one class, 1 if no mask shows a lesion."""
        labels = range(1, max(self.num_classes, 2))
        found = torch.zeros(256, dtype=torch.bool)
        for mask in self.masks:
            levels = (mask >= 128).to(torch.uint8) if self.num_classes == 1 else mask
            found |= torch.bincount(levels.flatten(), minlength=256).cpu() > 0
            if found[labels.start : labels.stop].all():
                break
        return tuple(label for label in labels if not found[label])

    def to(self, device: torch.device) -> Dataset:
        """Copy images and masks to a device."""
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))


def load_dataset(prepared: PreparedSet, ids: Sequence[str]) -> Dataset:
    """Read the images of `ids`, in that order.

    Raises:
        ValueError: Some ids are not in the set.
    """
    row_of = {name: row for row, name in enumerate(prepared.ids)}
    unknown = [name for name in ids if name not in row_of]
    if unknown:
        raise ValueError(f"{prepared.path} has no image {', '.join(unknown[:5])} ({len(unknown)} ids are missing)")
    rows = [row_of[name] for name in ids]
    return Dataset(
        ids=tuple(ids),
        images=torch.from_numpy(prepared.images(rows)),
        masks=torch.from_numpy(prepared.masks(rows)),
        num_classes=prepared.num_classes,
    )
