"""Near-duplicates of prepared sets, searched once and kept in a file beside the set.

The file is valid for the checksums of the sets and the version of the search.
"""

import logging
from pathlib import Path

from mhsvm.files import NO_ROOM, cache_path
from mhsvm.leakage.duplicates import DEFAULT_THRESHOLD, VERSION, DuplicatePair, find_duplicates, merge_groups
from mhsvm.leakage.small_copy import MIN_SIDE
from mhsvm.store import PreparedSet
from mhsvm.text_file import read_json, write_json

log = logging.getLogger(__name__)

FORMAT = "mhsvm-duplicates"


def search_duplicates(first: PreparedSet, second: PreparedSet | None = None) -> list[DuplicatePair]:
    """Find near-duplicates in a prepared set, or between two; the result of an earlier search is reused.

    Args:
        first: The set; the result is kept in its folder, or in the user's cache if that is read-only.
        second: Another set; each pair is then an image of the first and an image of the second set.
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
                "warning: the images of %s are small, %d x %d: below %d pixels some similar images of "
                "different lesions are reported as near-duplicates",
                prepared.path,
                *prepared.size,
                MIN_SIDE,
            )
    kept = _read(path, key)
    if kept is not None:
        return kept
    total = sum(map(len, sets))
    log.info("searching near-duplicates among %d images; the result is kept in %s", total, path)
    images = [prepared.images(slice(None)) for prepared in sets]
    if second is None:
        pairs = find_duplicates(images[0], first.ids, original_sizes_a=first.original_sizes)
    else:
        pairs = find_duplicates(
            images[0],
            first.ids,
            images[1],
            second.ids,
            original_sizes_a=first.original_sizes,
            original_sizes_b=second.original_sizes,
        )
    rows = [[pair.id_a, pair.id_b, pair.score] for pair in pairs]
    _keep(path, {**key, "pairs": rows})
    return pairs


def duplicate_groups(prepared: PreparedSet) -> tuple[str, ...]:
    """Group of each image that a split must keep together: the groups of the set, merged by near-duplicates.

    An image without a group has "".
    """
    return merge_groups(prepared.ids, prepared.groups, search_duplicates(prepared))


def _path(first: PreparedSet, second: PreparedSet | None) -> Path:
    other = "" if second is None else f"-{second.checksum[:12]}"
    name = f"{first.path.name.removeprefix('.').removesuffix('.h5')}.duplicates{other}.json"
    return cache_path(first.path.parent, name)


def _keep(path: Path, content: dict) -> None:
    try:
        write_json(path, content, indent=1)
    except OSError as error:
        if error.errno in NO_ROOM:
            raise
        # the pairs are found, and no test fails for a file that only saves time
        log.warning(
            "warning: the result cannot be kept in %s (%s), and is searched again next time: set XDG_CACHE_HOME to a "
            "folder that can be written",
            path.parent,
            error.strerror,
        )


def _read(path: Path, key: dict) -> list[DuplicatePair] | None:
    """The pairs of a file with this key; None if it is missing, damaged or unreadable."""
    try:
        content = read_json(path)
        if {name: content.get(name) for name in key} != key:
            return None
        return [DuplicatePair(id_a, id_b, score) for id_a, id_b, score in content["pairs"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
