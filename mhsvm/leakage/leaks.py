"""Leaks: images that two parts of a study have in common, by id, by pixels, or as near-duplicates."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np

from mhsvm.leakage.duplicate_file import search_duplicates
from mhsvm.store import PreparedSet

SAME_ID, SAME_PIXELS, NEAR, ONLY_ID = "same id", "same pixels", "near-duplicate", "same id, another picture"
# The most certain first.
KINDS = (SAME_ID, SAME_PIXELS, NEAR, ONLY_ID)


@dataclass(frozen=True)
class Leak:
    """Two equal images, or two images of one lesion.

    Attributes:
        id_a, id_b: Their ids in the first and the second set or part.
        kind: One of `KINDS`. `ONLY_ID` is not a leak: the ids are equal, but the images differ.
        score: Correlation of the aligned images, 1 for equal pixels; None if they were not compared or differ.
    """

    id_a: str
    id_b: str
    kind: str
    score: float | None


def find_leaks(first: PreparedSet, second: PreparedSet | None = None) -> list[Leak]:
    """Find equal images and images of one lesion, in a set or between two.

    Args:
        first: A set.
        second: Another set, of any image size; each pair is then an image of the first and one of the second.
    Returns:
        Leaks, the most certain first.
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
    return _sort_by_certainty(leaks)


def leaks_between(leaks: Sequence[Leak], train_ids: Collection[str], test_ids: Collection[str]) -> list[Leak]:
    """Select the leaks between two parts of a set.

    Args:
        leaks: Result of `find_leaks` for the set.
        train_ids, test_ids: Ids of the parts; an id in both is a leak, too.
    Returns:
        Leaks from an image of the first part to one of the second, the most certain first.
    """
    train, test = set(train_ids), set(test_ids)
    crossing = [Leak(name, name, SAME_ID, 1.0) for name in test_ids if name in train]
    for leak in leaks:
        both = (leak, Leak(leak.id_b, leak.id_a, leak.kind, leak.score))
        crossing += [each for each in both if each.id_a in train and each.id_b in test]
    return _sort_by_certainty(crossing)


def _sort_by_certainty(leaks: Sequence[Leak]) -> list[Leak]:
    return sorted(leaks, key=lambda leak: (KINDS.index(leak.kind), -(leak.score or 0), leak.id_a, leak.id_b))


def _equal_pixels(id_a: str, first: PreparedSet, id_b: str, second: PreparedSet, score: float) -> bool:
    # reading images is slow, and equal pixels score 1
    if score < 1 or first.size != second.size:
        return False
    return np.array_equal(first.images([first.ids.index(id_a)]), second.images([second.ids.index(id_b)]))
