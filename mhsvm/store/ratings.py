"""The masks of several raters in a prepared set.

The set has a mask for each image, which is the primary one, and apart from these any number of masks an image, each
with the name of its rater. In the file:

    raters          text (r,), names of the raters in their order
    rater_masks     uint8 (m, h, w), in the order of the images, those of an image in that of the raters
    rater_rows      int32 (m,), row of the image of each mask
    rater_numbers   int32 (m,), number of its rater
    rater_tools, rater_skills   text (m,), tool and skill of the rater, or empty

Shape letters: m masks, r raters, h w prepared size in pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mhsvm.store.hdf5 import read_strings, write_strings
from mhsvm.store.new_file import NewFile
from mhsvm.store.rows import RowReader, Rows, RowWriter
from mhsvm.store.saved_file import SavedFile

# Names with another meaning where a mask is chosen or measured.
RESERVED = ("primary", "first", "majority", "staple", "random", "prediction", "others")
_NAMES, _MASKS, _ROWS, _NUMBERS, _TOOLS, _SKILLS = (
    "raters",
    "rater_masks",
    "rater_rows",
    "rater_numbers",
    "rater_tools",
    "rater_skills",
)


@dataclass(frozen=True)
class Rating:
    """A mask of a rater.

    Attributes:
        rater: Name of the rater.
        mask: uint8 (h, w), like `Sample.mask`.
        tool: Tool that the mask was drawn with, or "".
        skill: Skill of the rater, or "".
    """

    rater: str
    mask: np.ndarray
    tool: str = ""
    skill: str = ""


def check_raters(names: Sequence[str]) -> None:
    """Check names of raters.

    Raises:
        ValueError: One is empty, reserved or given twice.
    """
    for name in names:
        if not name.strip() or "\n" in name or name.lower() in RESERVED:
            raise ValueError(
                f"a rater has a name of one line other than {', '.join(RESERVED)}, which mean something else; "
                f"received {name!r}: rename that rater"
            )
    if len({name.lower() for name in names}) < len(names):
        raise ValueError(f"raters have different names; received {', '.join(names)}")


class RatingWriter:
    """Writes the masks of raters, image by image.

    Args:
        new: The file.
        raters: Names of all raters, at least one.
        size: (h, w).
    """

    def __init__(self, new: NewFile, raters: Sequence[str], size: tuple[int, int]) -> None:
        check_raters(raters)
        self._new, self._number = new, {name: number for number, name in enumerate(raters)}
        self._masks = RowWriter(new, _MASKS, size, compress=True)
        self._columns: list[tuple[int, int, str, str]] = []

    def append(self, row: int, ratings: Sequence[Rating]) -> None:
        """Write the masks of the image of a row.

        Raises:
            ValueError: A rater is unknown, or has two masks.
        """
        names = [rating.rater for rating in ratings]
        if len(set(names)) < len(names) or not set(names) <= self._number.keys():
            raise ValueError(
                f"an image has one mask at most of each of the raters {', '.join(self._number)}; received masks of "
                f"{', '.join(names)}"
            )
        for rating in sorted(ratings, key=lambda rating: self._number[rating.rater]):
            self._masks.append(rating.mask[None])
            self._columns.append((row, self._number[rating.rater], rating.tool, rating.skill))

    def close(self) -> None:
        """Write names and checksums."""
        file, columns = self._new.file, self._columns
        write_strings(file, _NAMES, tuple(self._number))
        for key, place in ((_ROWS, 0), (_NUMBERS, 1)):
            file[key] = np.array([column[place] for column in columns], np.int32)
        write_strings(file, _TOOLS, [column[2] for column in columns])
        write_strings(file, _SKILLS, [column[3] for column in columns])
        self._masks.close()


class Ratings:
    """The masks of the raters of a set, which are read on demand.

    Attributes:
        raters: Names of the r raters, in their order.
        rows: int32 (m,), row of the image of each mask, ascending.
        numbers: int32 (m,), number of its rater.
        tools, skills: Tool and skill of the rater of each mask, or "".
    """

    def __init__(self, saved: SavedFile, ids: Sequence[str]) -> None:
        file = saved.file
        self.raters = read_strings(file, _NAMES)
        self.rows, self.numbers = file[_ROWS][:], file[_NUMBERS][:]
        self.tools, self.skills = read_strings(file, _TOOLS), read_strings(file, _SKILLS)
        if len(self.rows) and not 0 <= self.rows.min() <= self.rows.max() < len(ids):
            raise ValueError(f"{_ROWS} names rows outside of 0..{len(ids) - 1}")
        names = [f"{ids[row]} by {self.raters[number]}" for row, number in zip(self.rows, self.numbers, strict=True)]
        self._masks: RowReader = saved.rows(_MASKS, names)
        self._starts = np.searchsorted(self.rows, np.arange(len(ids) + 1))

    def __len__(self) -> int:
        return len(self.rows)

    def masks(self, places: Rows) -> np.ndarray:
        """Read masks by their places among all m, uint8 (len(places), h, w).

        Raises:
            ValueError: A mask is damaged.
        """
        return self._masks.read(places)

    def places(self, row: int) -> np.ndarray:
        """Places of the masks of an image, in the order of the raters, int64 (number of masks,)."""
        return np.arange(self._starts[row], self._starts[row + 1])

    def of(self, row: int) -> dict[str, np.ndarray]:
        """Read the masks of an image by the names of their raters, in the order of the raters, uint8 (h, w) each."""
        places = self.places(row)
        return {self.raters[self.numbers[place]]: mask for place, mask in zip(places, self.masks(places), strict=True)}

    def num_of(self, row: int) -> int:
        """Number of masks of an image."""
        return int(self._starts[row + 1] - self._starts[row])


def read_ratings(saved: SavedFile, ids: Sequence[str]) -> Ratings | None:
    """The masks of raters of a set; None if it has one mask an image."""
    return Ratings(saved, ids) if _MASKS in saved.file else None
