"""Facts about the images and masks of a set that limit measurements on it."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from mhsvm.store import PreparedSet, Sample
from mhsvm.store.mask_agreement import mask_dice

# Divisor of height and width that every network of this package requires.
NETWORK_STRIDE = 32
_NAMED = 5


class Facts:
    """Collects facts while a set is prepared.

    Args:
        size: (h, w) of the set.
        num_classes: 1 for lesion masks, k >= 2 for class indices.
    """

    def __init__(self, size: tuple[int, int], num_classes: int) -> None:
        self._size, self._num_classes = size, num_classes
        self._digests: dict[str, bytes] = {}
        self._num_masks = self._num_coarse = self._num_full = self._num_at_corners = 0

    def add_file(self, id_: str, content: bytes) -> None:
        """Add the file of an image; several threads may call this."""
        self._digests[id_] = hashlib.blake2b(content, digest_size=16).digest()

    def add_mask(self, sample: Sample) -> None:
        """Add a prepared mask."""
        mask = sample.mask >= 128 if self._num_classes == 1 else sample.mask
        self._num_masks += 1
        self._num_coarse += is_coarse(mask)
        self._num_full += bool(mask.all())
        self._num_at_corners += bool(
            mask[:: mask.shape[0] - 1 or 1, :: mask.shape[1] - 1 or 1].all() and not mask.all()
        )

    def lines(self, path: Path) -> tuple[str, ...]:
        """Describe the facts.

        Args:
            path: The prepared set.
        """
        h, w = self._size
        found = []
        if h % NETWORK_STRIDE or w % NETWORK_STRIDE:
            fitting = " x ".join(str(-(-side // NETWORK_STRIDE) * NETWORK_STRIDE) for side in (h, w))
            found.append(
                f"{h} x {w} is no size for the networks of this package, which divide height and width by "
                f"{NETWORK_STRIDE}: prepare at such as {fitting} to train or test on it"
            )
        if self._num_coarse:
            found.append(
                f"{self._num_coarse} of {self._num_masks} masks are constant on 2 x 2 pixels: they were drawn on a "
                f"grid of {h // 2} x {w // 2} or less, and their boundaries are uncertain by about 2 pixels"
            )
        if self._num_full:
            found.append(f"{self._num_full} of {self._num_masks} masks show no background")
        if self._num_classes == 1 and 2 * self._num_at_corners > self._num_masks:
            found.append(
                f"{self._num_at_corners} of {self._num_masks} masks are lesion at all four corners: white is lesion, "
                "so invert them if the lesion is black in them"
            )
        return (*found, *self._identical_lines(path))

    def _identical_lines(self, path: Path) -> list[str]:
        ids_of: dict[bytes, list[str]] = defaultdict(list)
        for id_, digest in sorted(self._digests.items()):
            ids_of[digest].append(id_)
        groups = [ids for ids in ids_of.values() if len(ids) > 1]
        if not groups:
            return []
        with PreparedSet.open(path) as prepared:
            shown = [self._describe(ids, prepared) for ids in groups[:_NAMED]]
        more = f"; and {len(groups) - _NAMED} more" if len(groups) > _NAMED else ""
        return [f"images that are one file: {'; '.join(shown)}{more}"]

    def _describe(self, ids: Sequence[str], prepared: PreparedSet) -> str:
        rows = [prepared.ids.index(id_) for id_ in ids]
        first, *others = prepared.masks(rows)
        dice = min(mask_dice(first, other, self._num_classes) for other in others)
        same = all(np.array_equal(first, other) for other in others)
        named = [
            f"{id_} ({prepared.subsets[row]})" if prepared.subsets[row] else id_
            for id_, row in zip(ids, rows, strict=True)
        ]
        return f"{' and '.join(named)} with {'equal masks' if same else f'different masks (Dice {dice:.3f})'}"


def is_coarse(mask: np.ndarray) -> bool:
    """Whether a mask (h, w) of more than one value is constant on each block of 2 x 2 pixels."""
    h, w = mask.shape
    if h % 2 or w % 2 or (mask == mask[0, 0]).all():
        return False
    blocks = mask.reshape(h // 2, 2, w // 2, 2)
    return bool((blocks == blocks[:, :1, :, :1]).all())
