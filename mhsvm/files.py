"""Files and folders that are either complete or not there."""

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
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
    partial = _prepare_partial(path)
    try:
        yield partial
        _sync(partial)
        os.replace(partial, path)
        _sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def replace_folder_when_complete(path: str | Path) -> Iterator[Path]:
    """The same for a folder, which takes the place of an older one as a whole.

    A process that is killed between the two renames leaves the older folder as `.NAME.HOST-PID.partial.older`.

    Args:
        path: The folder to make; the one that it lies in is made if missing.
    Yields:
        An empty folder to fill.
    """
    path = Path(path)
    partial = _prepare_partial(path)
    older = partial.with_name(partial.name + ".older")
    partial.mkdir()
    try:
        yield partial
        if path.exists():
            os.replace(path, older)
        os.replace(partial, path)
    finally:
        if older.exists() and not path.exists():
            os.replace(older, path)
        shutil.rmtree(older, ignore_errors=True)
        shutil.rmtree(partial, ignore_errors=True)


def check_only_holds(folder: Path, patterns: Sequence[str], what: str) -> None:
    """Make sure that a folder can be replaced without losing anything but older results of the same kind.

    Args:
        folder: It need not exist.
        patterns: Names of the files that such results consist of, such as "*.png".
        what: What the results are, for the message.
    Raises:
        FileExistsError: It holds something else, or is no folder.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise FileExistsError(f"{folder} is a file: choose another folder with --out")
    others = [path.name for path in folder.iterdir() if not any(map(path.match, patterns))]
    if others:
        raise FileExistsError(
            f"{folder} holds more than {what}, such as {min(others)}: choose another folder with --out"
        )


def _prepare_partial(path: Path) -> Path:
    """The temporary name for a path, with its parent folder there and what killed processes left removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove_stale(path)
    return path.with_name(f".{path.name}.{socket.gethostname()}-{os.getpid()}.partial")


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
            if partial.is_dir():
                shutil.rmtree(partial, ignore_errors=True)
            else:
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
