"""Views of a square picture, mirrored and turned: what a prediction is averaged over at test time.

Every view only re-orders pixels, so what comes back lies exactly where it was.
"""

from typing import NamedTuple

from torch import Tensor

from mhsvm.registry import Registry


class View(NamedTuple):
    """Swap rows and columns, then mirror up-down, then left-right; each if set."""

    transpose: bool = False
    flip_rows: bool = False
    flip_columns: bool = False

    def apply(self, maps: Tensor) -> Tensor:
        """Maps (b, c, h, w) as this view shows them."""
        maps = maps.mT if self.transpose else maps
        return maps.flip(self._flipped) if self._flipped else maps

    def undo(self, maps: Tensor) -> Tensor:
        """Maps that were predicted in this view, (b, c, h, w), as they lie in the picture."""
        maps = maps.flip(self._flipped) if self._flipped else maps
        return maps.mT if self.transpose else maps

    @property
    def _flipped(self) -> list[int]:
        return [axis for axis, flipped in ((-2, self.flip_rows), (-1, self.flip_columns)) if flipped]


_FLIPS = tuple(View(False, rows, columns) for rows in (False, True) for columns in (False, True))

VIEWS: Registry[tuple[View, ...]] = Registry("test-time augmentation")

VIEWS.add("none", (View(),))
VIEWS.add("flips", _FLIPS)
# with the four flips, the quarter turns and their mirror images: all symmetries of a square
VIEWS.add("turns", (*_FLIPS, *(view._replace(transpose=True) for view in _FLIPS)))


def list_augmentations() -> tuple[str, ...]:
    """Names that `find_views` knows."""
    return VIEWS.names()


def find_views(name: str, size: tuple[int, int]) -> tuple[View, ...]:
    """The views of a test-time augmentation.

    Args:
        name: "none", "flips" (4 views) or "turns" (8 views: flips and quarter turns).
        size: (h, w) of what the network takes, in pixels.
    Raises:
        ValueError: The name is unknown, or the network's input is not square and cannot be turned.
    """
    views = VIEWS[name]
    if size[0] != size[1] and any(view.transpose for view in views):
        raise ValueError(
            f"quarter turns need a square input; the checkpoint takes {size[0]} x {size[1]}: take 'flips' instead"
        )
    return views
