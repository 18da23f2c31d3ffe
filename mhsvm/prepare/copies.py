"""Files that a publisher or a mirror has packed twice."""

import zlib
from collections.abc import Mapping, Sequence

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.problems import Problems

Found = Mapping[str, list[SourceFile]]

_COPIES = "further copies of an image or mask, under the same name and with the same bytes"


def without_copies(sides: Sequence[Found], problems: Problems) -> list[dict[str, list[SourceFile]]]:
    """Keep one file of each id on each side, if its files have the same bytes on all sides.

    Args:
        sides: Files by id: the images, and the masks of each rater.
        problems: Copies are recorded there as left out. Files that differ stay, as a problem of others.
    """
    kept = [{id_: list(files) for id_, files in side.items()} for side in sides]
    for id_ in dict.fromkeys(id_ for side in sides for id_ in side):
        several = [side[id_] for side in kept if len(side.get(id_, ())) > 1]
        if several and all(map(_are_equal, several)):
            for files in several:
                for copy in files[1:]:
                    problems.leave_out(_COPIES, copy.name)
                del files[1:]
    return kept


def _are_equal(files: Sequence[SourceFile]) -> bool:
    """Whether files have the same bytes; they are read only if their sizes agree."""
    if len({each.num_bytes for each in files}) > 1:
        return False
    checksums = {_checksum(each) for each in files}
    return len(checksums) == 1 and None not in checksums


def _checksum(file: SourceFile) -> int | None:
    """CRC-32 of a file, which zip files have in their directory; None if it cannot be read, which is reported later."""
    if file.member is not None:
        return file.member.CRC
    try:
        return zlib.crc32(file.read())
    except ValueError:
        return None
