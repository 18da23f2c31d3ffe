"""Test-time augmentation (TTA) by the symmetries of a square: the probabilities of all transforms are averaged.

Every transform only reorders pixels, so that undoing it is exact.
"""

from typing import NamedTuple

from torch import Tensor

from mhsvm.registry import Registry


class Transform(NamedTuple):
    """Swap rows and columns, then flip up-down, then flip left-right; each if set."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, maps: Tensor) -> Tensor:
        """Transform maps (b, c, h, w)."""
        maps = maps.mT if self.transpose else maps
        return maps.flip(self._flipped) if self._flipped else maps

    def undo(self, maps: Tensor) -> Tensor:
        """Bring maps (b, c, h, w) that were predicted for transformed images back to the original orientation."""
        maps = maps.flip(self._flipped) if self._flipped else maps
        return maps.mT if self.transpose else maps

    @property
    def _flipped(self) -> list[int]:
        return [axis for axis, flipped in ((-2, self.flip_rows), (-1, self.flip_columns)) if flipped]


_FLIPS = tuple(Transform(False, rows, columns) for rows in (False, True) for columns in (False, True))

TRANSFORMS: Registry[tuple[Transform, ...]] = Registry("test-time augmentation")

TRANSFORMS.add("none", (Transform(),))
TRANSFORMS.add("flips", _FLIPS)
# d4: all symmetries of a square
TRANSFORMS.add("turns", (*_FLIPS, *(transform._replace(transpose=True) for transform in _FLIPS)))


def list_augmentations() -> tuple[str, ...]:
    """Names that `find_transforms` knows."""
    return TRANSFORMS.names()


def find_transforms(name: str, size: tuple[int, int]) -> tuple[Transform, ...]:
    """The transforms of a test-time augmentation.

    Args:
        name: "none", "flips" (4 transforms) or "turns" (d4: 8 transforms, flips and rotations by 90 degrees).
        size: (h, w) of the network's input, in pixels.
    Raises:
        ValueError: The name is unknown, or the network's input is not square and cannot be rotated.
    """
    transforms = TRANSFORMS[name]
    if size[0] != size[1] and any(transform.transpose for transform in transforms):
        raise ValueError(
            f"rotations by 90 degrees require a square input; the checkpoint takes {size[0]} x {size[1]}: "
            "take 'flips' instead"
        )
    return transforms
