"""Near-duplicates of prepared sets, searched once and kept beside the set.

The file is tied to the checksums of the sets and to the search's version: whatever changes makes it void.
"""

import json
import logging
from pathlib import Path

from mhsvm.files import cache_path, replace_when_complete
from mhsvm.leakage.duplicates import DEFAULT_THRESHOLD, MIN_SIDE, VERSION, DuplicatePair, find_duplicates, merge_groups
from mhsvm.store import PreparedSet

log = logging.getLogger(__name__)

FORMAT = "mhsvm-duplicates"


def search_duplicates(first: PreparedSet, second: PreparedSet | None = None) -> list[DuplicatePair]:
    """Near-duplicates inside a prepared set, or between two, from the file of an earlier search if there is one.

    Args:
        first: The set beside which the result is kept (or in the user's cache, where its folder is read-only).
        second: Another set: pairs are then of one image of each, never inside one.
    Returns:
        Pairs, best first; see `mhsvm.leakage.duplicates.find_duplicates`.
    """
    sets = [first] if second is None else [first, second]
    key = {
        "format": FORMAT,
        "version": VERSION,
        "threshold": DEFAULT_THRESHOLD,
        "checksums": [prepared.checksum for prepared in sets],
    }
    path = _path(first, second)
    for prepared in sets:
        if min(prepared.size) < MIN_SIDE:
            log.warning(
                "warning: the images of %s are small, %d x %d: below %d pixels some that are alike pass for one lesion",
                prepared.path,
                *prepared.size,
                MIN_SIDE,
            )
    kept = _read(path, key)
    if kept is not None:
        return kept
    total = sum(map(len, sets))
    log.info("looking for near-duplicates among %d images; the result is kept in %s", total, path)
    images, *other_images = (prepared.images(slice(None)) for prepared in sets)
    if second is None:
        pairs = find_duplicates(images, first.ids)
    else:
        pairs = find_duplicates(images, first.ids, other_images[0], second.ids)
    with replace_when_complete(path) as partial:
        rows = [[pair.id_a, pair.id_b, pair.score] for pair in pairs]
        partial.write_text(json.dumps({**key, "pairs": rows}, indent=1) + "\n", encoding="utf-8")
    return pairs


def duplicate_groups(prepared: PreparedSet) -> tuple[str, ...]:
    """Group of each image that a split must not separate: those of the set, joined where near-duplicates link them.

    An image that stands alone has "".
    """
    return merge_groups(prepared.ids, prepared.groups, search_duplicates(prepared))


def _path(first: PreparedSet, second: PreparedSet | None) -> Path:
    other = "" if second is None else f"-{second.checksum[:12]}"
    name = f"{first.path.name.removeprefix('.').removesuffix('.h5')}.duplicates{other}.json"
    return cache_path(first.path.parent, name)


def _read(path: Path, key: dict) -> list[DuplicatePair] | None:
    """The pairs of a file with that key; None where there is none, or a damaged one, which is simply made again."""
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if {name: content.get(name) for name in key} != key:
            return None
        return [DuplicatePair(id_a, id_b, score) for id_a, id_b, score in content["pairs"]]
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
