"""A part of a prepared set as uint8 tensors in the memory of a CPU or GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from mhsvm.data.mask_choice import read_all_masks, read_masks
from mhsvm.store import PreparedSet


@dataclass(frozen=True)
class Dataset:
    """Images and masks.

    Attributes:
        ids: Ids of the n images.
        images: uint8 (n, h, w, 3).
        masks: uint8 (n, h, w): lesion coverage 0..255, or class indices with 255 = ignore. With the masks of several
            raters (m, h, w), see `starts`.
        num_classes: 1 for coverage masks, else the number of classes.
        starts: int64 (n + 1,), on the CPU, the place of the first of each image's masks, and the end; None if each
            image has one mask.
        mask_rows: int64 (n,), on the CPU, the place of the mask that each image has at present; None if each has one.
    """

    ids: tuple[str, ...]
    images: Tensor
    masks: Tensor
    num_classes: int = 1
    starts: Tensor | None = None
    mask_rows: Tensor | None = None

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

    def with_random_masks(self, generator: torch.Generator) -> Dataset:
        """Choose one of its masks for each image, all with the same probability; a single one needs no choice."""
        if self.starts is None:
            return self
        counts = self.starts.diff()
        chosen = (torch.rand(len(self), generator=generator, dtype=torch.float64) * counts).long()
        return replace(self, mask_rows=self.starts[:-1] + chosen.minimum(counts - 1))

    def first(self, num: int) -> Dataset:
        """The first images."""
        return replace(
            self,
            ids=self.ids[:num],
            images=self.images[:num],
            masks=self.masks[:num] if self.starts is None else self.masks[: self.starts[num]],
            starts=None if self.starts is None else self.starts[: num + 1],
            mask_rows=None if self.mask_rows is None else self.mask_rows[:num],
        )

    def to(self, device: torch.device) -> Dataset:
        """Copy images and masks to a device."""
        return replace(self, images=self.images.to(device), masks=self.masks.to(device))


def load_dataset(prepared: PreparedSet, ids: Sequence[str], *, mask: str = "primary") -> Dataset:
    """Read the images of `ids`, in that order.

    Args:
        prepared: The set.
        ids: Ids of the images.
        mask: Which mask of each image, if the set has those of several raters, see `mhsvm.data.mask_choice`; "random"
            reads all of them, for `Dataset.with_random_masks`.
    Raises:
        ValueError: Some ids are not in the set.
    """
    row_of = {name: row for row, name in enumerate(prepared.ids)}
    unknown = [name for name in ids if name not in row_of]
    if unknown:
        raise ValueError(f"{prepared.path} has no image {', '.join(unknown[:5])} ({len(unknown)} ids are missing)")
    rows = [row_of[name] for name in ids]
    starts = None
    if mask == "random":
        masks, starts = read_all_masks(prepared, rows)
    else:
        masks = read_masks(prepared, rows, mask)
    return Dataset(
        ids=tuple(ids),
        images=torch.from_numpy(prepared.images(rows)),
        masks=masks,
        num_classes=prepared.num_classes,
        starts=starts,
        mask_rows=None if starts is None else starts[:-1],
    )
