"""Lock a folder, so that only one sweep and its processes work in it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "posix":
    import fcntl


@contextmanager
def hold_folder(folder: Path) -> Iterator[int]:
    """Lock the folder of a sweep; the folder is created if needed.

    The lock is held as long as any process has the file open. If a sweep is killed, its trainings keep the lock, so a
    second sweep cannot write the same files.

    Yields:
        Descriptor of the open lock file, to be inherited by every process that works in the folder.
    Raises:
        ValueError: The folder is locked already, or the system has no such locks.
    """
    if os.name != "posix":
        raise ValueError("mhsvm sweep needs the file locks of Linux or macOS: train run by run, with `mhsvm train`")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"a sweep, or a training of a killed sweep, is running in {folder}: wait for it, or end its processes"
            ) from error
        yield file.fileno()
