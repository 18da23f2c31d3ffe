"""HDF5 files while they are written."""

import io
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import h5py

from mhsvm.files import replace_when_complete
from mhsvm.store.checksums import reserve_end, write_end

_Binary = io.RawIOBase | io.BytesIO


class _Guard:
    """A binary file that keeps the error of a write instead of raising it.

    The HDF5 library ends the process with a segmentation fault after a write that failed, such as on a full disk: it
    writes again when it closes the file, and at the end of the process. So it never learns of the failure.
    """

    def __init__(self, file: _Binary) -> None:
        self._file = file
        self.error: OSError | None = None
        self.seek, self.tell, self.read, self.readinto = file.seek, file.tell, file.read, file.readinto

    def write(self, data: memoryview) -> int:
        rest = memoryview(data).cast("B")
        try:
            while self.error is None and rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            self.error = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def flush(self) -> None:
        self._file.flush()


class NewFile:
    """An HDF5 file that is being written.

    Attributes:
        file: The file, for h5py.
        rows: Names of the arrays that are read by rows.
    """

    def __init__(self, file: h5py.File, guard: _Guard, name: str) -> None:
        self.file = file
        self.rows: list[str] = []
        self._guard, self._name = guard, name

    def check(self) -> None:
        """Raise the error of an earlier write.

        Raises:
            OSError: The disk is full, or refuses the file for another reason.
        """
        error = self._guard.error
        if error is not None:
            raise OSError(error.errno, error.strerror, self._name) from error


@contextmanager
def new_file(path: str | Path | io.BytesIO) -> Iterator[NewFile]:
    """Create an HDF5 file, with checksums of its content; it gets its name when the block succeeds.

    Args:
        path: The file to write or replace, or a buffer in memory.
    Raises:
        OSError: The file cannot be written. Nothing is left of it.
    """
    with ExitStack() as stack:
        target: _Binary
        if isinstance(path, io.BytesIO):
            target = path
        else:
            partial = stack.enter_context(replace_when_complete(path))
            target = stack.enter_context(partial.open("w+b", buffering=0))
        name = "the buffer" if isinstance(path, io.BytesIO) else str(path)
        yield stack.enter_context(_fill(target, name))


@contextmanager
def _fill(target: _Binary, name: str) -> Iterator[NewFile]:
    guard = _Guard(target)
    with h5py.File(name, "w", driver="fileobj", fileobj=guard) as file:
        new = NewFile(file, guard, name)
        try:
            yield new
            rows = reserve_end(file, new.rows)
        finally:
            # reading back content that was lost fails in other ways
            new.check()
    write_end(guard, rows)
    new.check()
