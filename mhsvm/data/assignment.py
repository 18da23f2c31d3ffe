"""The assignment of images, and of groups of images, to the parts of a split by counts."""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from fractions import Fraction

from mhsvm.data.split_file import PARTS


def counts_by_percent(total: int, percentages: Sequence[Fraction]) -> tuple[int, int, int]:
    """Split a total at the rounded sums of three percentages, so that 0 % is always 0 images.

    A part with a percentage has at least one image, which the largest part gives.
    """
    train, val, _ = percentages
    ends = [math.floor(Fraction(total) * percent / 100 + Fraction(1, 2)) for percent in (train, train + val)]
    counts = [ends[0], ends[1] - ends[0], total - ends[1]]
    for part, percent in enumerate(percentages):
        if percent > 0 and counts[part] == 0:
            counts[counts.index(max(counts))] -= 1
            counts[part] = 1
    return counts[0], counts[1], counts[2]


def fill_every_part(units: Sequence[list[str]], counts: Sequence[int]) -> dict[str, str]:
    """Assign units as `fill_parts` does, and each part with a count at least one of them.

    If groups leave a part empty, it gets the smallest unit of a part with several.
    """
    parts = fill_parts(units, counts)
    for part, count in zip(PARTS, counts, strict=True):
        if count and part not in parts.values():
            num_units = Counter(parts[unit[0]] for unit in units)
            movable: list[list[str]] = [unit for unit in units if num_units[parts[unit[0]]] > 1]
            parts.update(dict.fromkeys(sorted(movable, key=len)[0], part))
    return parts


def fill_parts(units: Iterable[list[str]], counts: Sequence[int]) -> dict[str, str]:
    """Assign units to train, val and test by counts.

    Each unit goes to the first part with enough room, or else to the part with the most room.

    Args:
        units: Ids that stay together, in the order of their assignment.
        counts: Number of images of train, val and test.
    Returns:
        The part of each id.
    """
    room = dict(zip(PARTS, counts, strict=True))
    parts: dict[str, str] = {}
    for unit in units:
        fitting = [part for part in PARTS if room[part] >= len(unit)]
        part = fitting[0] if fitting else max(PARTS, key=room.__getitem__)
        room[part] -= len(unit)
        parts.update(dict.fromkeys(unit, part))
    return parts
