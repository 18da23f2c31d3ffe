"""The first pairs of a set, for a quick try of everything that follows."""

from collections import Counter
from collections.abc import Sequence

from mhsvm.prepare.pairs import Pair


def first_pairs(pairs: Sequence[Pair], limit: int) -> list[Pair]:
    """Take `limit` pairs at most, as equally from each subset as possible, the first of each.

    Raises:
        ValueError: The limit is below 1.
    """
    if limit < 1:
        raise ValueError(f"`limit` is a number of images, 1 or more; received {limit}")
    counts = Counter(pair.subset for pair in pairs)
    rest, places = limit, {}
    for place, (subset, count) in enumerate(sorted(counts.items(), key=lambda item: item[1])):
        # small subsets first, so that larger ones get the places that these leave
        places[subset] = min(count, rest // (len(counts) - place))
        rest -= places[subset]
    taken: Counter[str] = Counter()
    first = []
    for pair in pairs:
        if taken[pair.subset] < places[pair.subset]:
            taken[pair.subset] += 1
            first.append(pair)
    return first
