"""Whether a file is the one of the table, by its size and checksum."""

import hashlib
from collections.abc import Callable
from pathlib import Path

from mhsvm.download.archives import Archive

_CHUNK = 2**22


def difference(path: Path, archive: Archive, report: Callable[[int, int | None], None]) -> str | None:
    """Describe how a file differs from the one of the table; None if it does not.

    Args:
        path: The file.
        archive: Its entry in the table.
        report: Called with the number of bytes that are read, and the size.
    """
    size = path.stat().st_size
    if archive.num_bytes not in (None, size):
        return f"it has {size:,} bytes, and {archive.name} has {archive.num_bytes:,}"
    algorithm, expected = archive.checksum
    if not algorithm:
        return None
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        num_read = 0
        while content := file.read(_CHUNK):
            digest.update(content)
            num_read += len(content)
            report(num_read, size)
    found = digest.hexdigest()
    return None if found == expected else f"its {algorithm} is {found}, and that of {archive.name} is {expected}"


def verified_by(archive: Archive) -> str:
    """The checks of a file, such as "byte count and sha256"."""
    checks = [*(["byte count"] if archive.num_bytes is not None else []), *filter(None, [archive.checksum[0]])]
    return " and ".join(checks) or "nothing"
