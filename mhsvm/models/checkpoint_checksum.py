"""The checksum of a checkpoint file, which torch does not verify.

torch.save writes a zip archive. Ours end with a comment of the archive that holds the CRC-32 of all bytes before it;
other files have the CRC-32 of each member only, which leaves the archive's own tables uncovered.
"""

import struct
import zipfile
import zlib
from pathlib import Path

_MARK = b"mhsvm-crc32:"
_COMMENT_SIZE = len(_MARK) + 8
# length of an archive's comment, the last field before it
_SIZE_FIELD = struct.Struct("<H")
_BLOCK = 2**20
# what Python's reader raises for archives with damaged tables or members
_ZIP_ERRORS = (
    *(zipfile.BadZipFile, zlib.error, struct.error),
    *(OSError, RuntimeError, ValueError, EOFError, OverflowError, KeyError, IndexError),
)


def add_checksum(path: Path) -> None:
    """Add the checksum to a new file of torch.save.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("r+b") as file:
        file.seek(-_SIZE_FIELD.size, 2)
        file.write(_SIZE_FIELD.pack(_COMMENT_SIZE))
        file.seek(0)
        checksum = 0
        while block := file.read(_BLOCK):
            checksum = zlib.crc32(block, checksum)
        file.write(_MARK + f"{checksum:08x}".encode())


def verify_checksum(path: Path) -> None:
    """Verify the checksum of a file, or of its members if it has none.

    Raises:
        ValueError: The file is damaged. The message names it and the damaged member.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2) - _COMMENT_SIZE
        file.seek(max(size, 0))
        comment = file.read()
        if not comment.startswith(_MARK):
            reason = _damage_in_members(path)
        else:
            file.seek(0)
            checksum, left = 0, size
            while block := file.read(min(left, _BLOCK)):
                checksum, left = zlib.crc32(block, checksum), left - len(block)
            is_whole = comment == _MARK + f"{checksum:08x}".encode()
            reason = None if is_whole else _damage_in_members(path) or "its tables do not match the checksum"
    if reason is not None:
        raise ValueError(f"{path} is damaged: {reason}. Copy or download it again, or take another checkpoint")


def _damage_in_members(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _ZIP_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return None if damaged is None else f"its part {damaged} does not match the checksum"
