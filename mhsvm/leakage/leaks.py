"""Images that two parts of a study share, though they should share none: by id, by pixels, or as near-duplicates."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mhsvm.leakage.duplicate_file import search_duplicates
from mhsvm.store import PreparedSet

SAME_ID, SAME_PIXELS, NEAR, ONLY_ID = "same id", "same pixels", "near-duplicate", "same id, another picture"
# From the surest on.
KINDS = (SAME_ID, SAME_PIXELS, NEAR, ONLY_ID)


@dataclass(frozen=True)
class Leak:
    """Two images that are one, or show one lesion.

    Attributes:
        id_a, id_b: Of the first and the second set or part.
        kind: One of `KINDS`. Of "same id, another picture" the pictures were compared and are unlike: names that
            happen to be equal, and no leak.
        score: Likeness of the aligned pictures, 1 for equal pixels; None where they were not compared or are unlike.
    """

    id_a: str
    id_b: str
    kind: str
    score: float | None


def find_leaks(first: PreparedSet, second: PreparedSet | None = None) -> list[Leak]:
    """Pairs of images that are one or show one lesion, inside a set or between two.

    Args:
        first: A set.
        second: Another one, of any image size; pairs are then of one image of each.
    Returns:
        The surest first.
    """
    leaks = []
    for pair in search_duplicates(first, second):
        if second is not None and pair.id_a == pair.id_b:
            kind = SAME_ID
        else:
            kind = SAME_PIXELS if _equal_pixels(pair.id_a, first, pair.id_b, second or first, pair.score) else NEAR
        leaks.append(Leak(pair.id_a, pair.id_b, kind, pair.score))
    if second is not None:
        found = {leak.id_a for leak in leaks if leak.kind == SAME_ID}
        shared = set(first.ids) & set(second.ids) - found
        leaks += [Leak(name, name, ONLY_ID, None) for name in first.ids if name in shared]
    return _surest_first(leaks)


def leaks_between(leaks: Sequence[Leak], train_ids: Collection[str], test_ids: Collection[str]) -> list[Leak]:
    """Of the leaks inside a set, those between two of its parts.

    Args:
        leaks: As `find_leaks` gives them of one set.
        train_ids, test_ids: Ids of the parts; what is in both is a leak by itself.
    Returns:
        Leaks from an image of the first part to one of the second, the surest first.
    """
    train, test = set(train_ids), set(test_ids)
    crossing = [Leak(name, name, SAME_ID, 1.0) for name in test_ids if name in train]
    for leak in leaks:
        ways = (leak, Leak(leak.id_b, leak.id_a, leak.kind, leak.score))
        crossing += [way for way in ways if way.id_a in train and way.id_b in test]
    return _surest_first(crossing)


def _surest_first(leaks: Sequence[Leak]) -> list[Leak]:
    return sorted(leaks, key=lambda leak: (KINDS.index(leak.kind), -(leak.score or 0), leak.id_a, leak.id_b))


def _equal_pixels(id_a: str, first: PreparedSet, id_b: str, second: PreparedSet, score: float) -> bool:
    # reading is what costs here, and equal pixels score 1
    if score < 1 or first.size != second.size:
        return False
    return np.array_equal(first.images([first.ids.index(id_a)]), second.images([second.ids.index(id_b)]))
