"""Files that are either complete or not there."""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replace_when_complete(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name; give it its own name only when the block ends well.

    The temporary file lies in the same folder and is called `.NAME.HOST-PID.partial`. It is removed when the
    block raises; what a killed process left behind is removed by the next one that writes NAME on that host.

    Args:
        path: The file to make; its folder is made if missing, an older file is replaced.
    Yields:
        The path to write to, which does not exist yet.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    partial = path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk: without it a power cut may keep the name and lose the content."""
    if path.is_dir() and os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _remove_stale(path: Path) -> None:
    prefix, suffix = f".{path.name}.{socket.gethostname()}-", ".partial"
    for partial in path.parent.iterdir():
        pid = partial.name.removeprefix(prefix).removesuffix(suffix)
        if partial.name == prefix + pid + suffix and pid.isdecimal() and not _is_running(int(pid)):
            partial.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    # Signal 0 only asks on POSIX; elsewhere it would end the process, so there nothing counts as stale.
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
