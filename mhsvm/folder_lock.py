"""Locks of folders, so that one process at a time works in each; a lock ends with its process, however that ends."""

import errno
import logging
import os
import socket
import sys
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from mhsvm.files import StrPath

log = logging.getLogger(__name__)

NAME = ".lock"
# The byte that Windows locks; it is far from the text of the file, which other processes read.
_BYTE = 2**20
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)
# File systems without locks, such as some network mounts.
_WITHOUT_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)


class FolderLock:
    """Holds a folder until the end of the `with` block, or of the last process that has inherited the lock.

    Args:
        user: Noun phrase for the message, such as "a training".
    """

    def __init__(self, user: str) -> None:
        self._user = user
        self._held: dict[Path, BinaryIO] = {}

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        while self._held:
            self._held.popitem()[1].close()

    def hold(self, folder: StrPath) -> int:
        """Lock an existing folder; nothing is done if this lock holds it already.

        Returns:
            Descriptor of the open file, for processes that are to inherit the lock.
        Raises:
            ValueError: Another process holds it; the message has its number and host.
        """
        key = Path(folder).resolve()
        if key not in self._held:
            self._held[key] = self._lock(Path(folder) / NAME)
        return self._held[key].fileno()

    def _lock(self, path: Path) -> BinaryIO:
        # a process that opens the file must not delete the text of the holder
        file = path.open("a+b", buffering=0)
        try:
            _lock_file(file)
        except OSError as error:
            holder = _read_holder(file)
            if error.errno in _WITHOUT_LOCKS:
                log.warning("warning: %s cannot be locked (%s): start nothing else there", path.parent, error.strerror)
                return file
            file.close()
            if error.errno not in _HELD:
                raise
            raise ValueError(
                f"{self._user} is running in {path.parent}, {holder}: wait for it, or end its processes"
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}".encode())
        return file


def _read_holder(file: BinaryIO) -> str:
    file.seek(0)
    return file.read(200).decode(errors="replace") or "by an unknown process"


if sys.platform == "win32":
    import msvcrt

    def _lock_file(file: BinaryIO) -> None:
        file.seek(_BYTE)
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock_file(file: BinaryIO) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
