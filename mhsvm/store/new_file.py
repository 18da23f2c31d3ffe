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
    writes again when it closes the file, and at the end of the process. So it never learns of the failure, and reads
    back the bytes that it has written: from then on, they are kept in memory until the file is closed.

    Attributes:
        error: The first error.
    """

    def __init__(self, file: _Binary) -> None:
        self._file = file
        self._place = 0
        self._kept: list[tuple[int, bytes]] = []
        self.error: OSError | None = None

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = self._file.seek(offset, whence)
        if whence == io.SEEK_END:
            self._place = max([self._place, *(start + len(content) for start, content in self._kept)])
        return self._place

    def tell(self) -> int:
        return self._place

    def read(self, size: int) -> bytes:
        self._file.seek(self._place)
        content = self._file.read(size) or b""
        self._place += len(content)
        return content

    def readinto(self, buffer: memoryview) -> int:
        out = memoryview(buffer).cast("B")
        self._file.seek(self._place)
        num_read = 0
        while num_read < len(out) and (num := self._file.readinto(out[num_read:])):
            num_read += num
        out[num_read:] = bytes(len(out) - num_read)
        for start, content in self._kept:
            first, last = max(start, self._place), min(start + len(content), self._place + len(out))
            if first < last:
                out[first - self._place : last - self._place] = content[first - start : last - start]
        self._place += len(out)
        return len(out)

    def write(self, data: memoryview) -> int:
        rest = memoryview(data).cast("B")
        end = self._place + len(rest)
        try:
            self._file.seek(self._place)
            while self.error is None and rest:
                rest = rest[self._file.write(rest) or 0 :]
        except OSError as error:
            self.error = error
        if rest:
            self._kept.append((end - len(rest), bytes(rest)))
        num_bytes, self._place = end - self._place, end
        return num_bytes

    def truncate(self, size: int | None = None) -> int:
        try:
            return self._file.truncate(size)
        except OSError as error:
            self.error = self.error or error
            return self._place if size is None else size

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
        yield new
        rows = reserve_end(file, new.rows)
    new.check()
    write_end(guard, rows)
    new.check()
