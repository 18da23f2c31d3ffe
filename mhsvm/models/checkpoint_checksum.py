"""The checksum of a checkpoint file, which torch does not verify.

torch.save writes a zip archive. Ours end with a comment of the archive that holds the CRC-32 of all bytes before it;
other files have the CRC-32 of each member only, which leaves the archive's own tables uncovered.
"""

import io
import struct
import zipfile
import zlib
from pathlib import Path

_MARK = b"mhsvm-crc32:"
_COMMENT_SIZE = len(_MARK) + 8
# length of an archive's comment, the last field before it
_SIZE_FIELD = struct.Struct("<H")
# the record at the end of an archive: its signature, and that length
_SIGNATURE = b"PK\5\6"
_END = struct.Struct("<20xH")
# holds that record and our comment; a longer comment is of another program
_TAIL = 64
# fits into a cache of the processor
_BLOCK = 2**18
# errors of Python's reader for archives with damaged tables or members
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
        checksum = _checksum(file, file.seek(0, 2))
        file.write(_MARK + f"{checksum:08x}".encode())


def verify_checksum(path: Path) -> None:
    """Verify the checksum of a file, or of its members if it has none.

    Raises:
        ValueError: The file is damaged. The message names it and the damaged member.
    """
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _TAIL, 0))
        tail = file.read()
        place = tail.rfind(_SIGNATURE)
        comment = tail[place + _END.size :]
        if place >= 0 and (len(tail) < place + _END.size or _END.unpack_from(tail, place)[0] != len(comment)):
            reason: str | None = "its end is missing"
        elif place < 0 or not comment.startswith(_MARK):
            reason = _damage_in_members(path)
        else:
            size -= len(comment)
            is_whole = comment == _MARK + f"{_checksum(file, size):08x}".encode()
            reason = None if is_whole else _damage_in_members(path) or "its tables do not match the checksum"
    if reason is not None:
        raise ValueError(f"{path} is damaged: {reason}. Copy or download it again, or take another checkpoint")


def _checksum(file: io.BufferedReader | io.BufferedRandom, size: int) -> int:
    """CRC-32 of the first `size` bytes of a file."""
    file.seek(0)
    checksum, buffer = 0, memoryview(bytearray(_BLOCK))
    while size > 0 and (num_read := file.readinto(buffer[: min(size, _BLOCK)])):
        checksum, size = zlib.crc32(buffer[:num_read], checksum), size - num_read
    return checksum


def _damage_in_members(path: Path) -> str | None:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except _ZIP_ERRORS as error:
        return f"{type(error).__name__}: {error}"
    return None if damaged is None else f"its part {damaged} does not match the checksum"
