"""One sweep at a time in a folder, and none while a process of an earlier one is still at work there."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

if os.name == "posix":
    import fcntl


@contextmanager
def hold_folder(folder: Path) -> Iterator[int]:
    """Hold a sweep's folder, which is made if missing.

    The lock lives as long as any process has the file open: a sweep that was killed leaves it to its trainings, and
    no second one starts to write what they write.

    Yields:
        The open lock file, to be inherited by every process that works in the folder.
    Raises:
        ValueError: The folder is held already, or this system has no such locks.
    """
    if os.name != "posix":
        raise ValueError("mhsvm sweep needs the file locks of Linux or macOS: train run by run, with train.py")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"a sweep, or a training that a killed sweep left behind, is at work in {folder}: "
                "wait for it, or end its processes"
            ) from error
        yield file.fileno()
