"""Write files atomically, and find a place for cached ones."""

import errno
import hashlib
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# Errors of writes without room. Python's have no name of a file, and others have the temporary one.
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

StrPath = str | os.PathLike[str]


@contextmanager
def full_disk_named(path: str | Path) -> Iterator[None]:
    """Name a file or folder in the error of a write in the block for which there is no room.

    Raises:
        OSError: The disk is full, or the user's quota or the largest size of a file is reached.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error


@contextmanager
def replace_when_complete(path: str | Path) -> Iterator[Path]:
    """Write a file under a temporary name and rename it when the block succeeds.

    The temporary file is `.NAME.HOST-PID.partial` in the same folder. It is removed when the block raises. If a
    process is killed, the next process that writes NAME on that host removes its temporary file.

    Args:
        path: The file to write. Its folder is created if needed; an older file is replaced.
    Yields:
        The temporary path, which does not exist yet.
    """
    path = Path(path)
    partial = partial_path(path)
    try:
        with full_disk_named(path):
            yield partial
            _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Choose a temporary path beside a file or folder, create its parent, and remove those of killed processes.

    The path is `.NAME.HOST-PID.partial` in the same folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")


def make_partial_folder(path: Path, *, named: Path | None = None) -> Path:
    """Make a folder at the temporary path of a file or folder.

    Raises:
        OSError: There is no permission or no room for it; the error names `named`, by default `path`.
    """
    partial = partial_path(path)
    try:
        partial.mkdir()
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(named or path)) from error
    return partial


def cache_path(folder: Path, name: str) -> Path:
    """Choose the path of a file that is derived from a folder and can be created again.

    The path is `.NAME` in the folder, or a file in the user's cache if the folder is not writable.
    """
    if os.access(folder, os.W_OK):
        return folder / f".{name}"
    key = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return user_cache() / key / name


def user_cache() -> Path:
    """The folder of this package in the user's cache; it need not exist, and it need not be writable.

    A user without a home folder, as of a container, has none that is.
    """
    named, home = os.environ.get("XDG_CACHE_HOME"), os.path.expanduser("~")
    # "~" stays where there is no home folder, and must not become a folder of that name
    return Path(named or Path("/nonexistent" if home == "~" else home) / ".cache") / "mhsvm"


def _sync(path: Path) -> None:
    """Flush a file or folder to the disk, so that a power cut does not keep the name and lose the content."""
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
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)


def _is_running(pid: int) -> bool:
    # Signal 0 is a query on POSIX. Elsewhere it would end the process, so no file counts as stale there.
    if os.name != "posix":
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
