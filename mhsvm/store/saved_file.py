"""HDF5 files while they are read: opened with a clear error, and verified."""

import io
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import h5py

from mhsvm.store.checksums import row_checksums, verify_end
from mhsvm.store.hdf5 import SCHEMA_VERSION, check_own, damage_named
from mhsvm.store.rows import RowReader


class SavedFile:
    """A complete file of a given format and of this schema version, open for reading.

    Everything but the rows is verified when it is opened; rows are verified when they are read.

    Args:
        path: The file, or its bytes.
        format: Required value of its attribute `format`.
        how_to_make: Command that makes such a file, for the error messages.
    Attributes:
        file: The file, for h5py.
        path: Its path.
    Raises:
        FileNotFoundError: The file does not exist.
        IsADirectoryError: It is a folder.
        PermissionError: It must not be read.
        ValueError: The file is not HDF5, is damaged, has another format or schema version, or links to other files.
    """

    def __init__(self, path: str | Path | bytes, *, format: str, how_to_make: str) -> None:
        self._how_to_make = how_to_make
        self.path = Path("the buffer") if isinstance(path, bytes) else Path(path)
        with ExitStack() as stack:
            with io.BytesIO(path) if isinstance(path, bytes) else self._open() as source, self.reading():
                verified = verify_end(source)
            with self.reading():
                opened = h5py.File(io.BytesIO(path), "r") if isinstance(path, bytes) else _open_hdf5(self.path)
                self.file = stack.enter_context(opened)
                found, version = self.file.attrs.get("format"), self.file.attrs.get("schema_version")
            if found != format:
                raise ValueError(f"{self.path} must be a file of format {format!r}; its format is {found!r}")
            if version != SCHEMA_VERSION:
                raise ValueError(
                    f"{self.path} has schema version {version}, this version of mhsvm reads {SCHEMA_VERSION}; "
                    f"make it again with `{how_to_make}`"
                )
            with self.reading():
                check_own(self.file)
                self._row_checksums = row_checksums(self.file, verified=verified)
            self._opened = stack.pop_all()

    def _open(self) -> BinaryIO:
        if self.path.is_dir():
            raise IsADirectoryError(f"{self.path} is a folder, not a file; make the file with `{self._how_to_make}`")
        if not self.path.exists():
            raise FileNotFoundError(f"there is no file {self.path}; make it with `{self._how_to_make}`")
        # Python's own errors name the file; those of HDF5 do not
        file = self.path.open("rb")
        if not h5py.is_hdf5(self.path):
            file.close()
            kind = "a zip file, not an HDF5 file" if zipfile.is_zipfile(self.path) else "not an HDF5 file"
            raise ValueError(f"{self.path} is {kind}; make it with `{self._how_to_make}`")
        return file

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Name the file in the errors that the HDF5 library raises in the block, as ValueError."""
        with damage_named(self.path, self._how_to_make):
            yield

    def rows(self, key: str, names: Sequence[str]) -> RowReader:
        """An array that is read by rows, which have these names in messages.

        Raises:
            ValueError: There are not as many rows as names.
        """
        if len(self.file[key]) != len(names):
            raise ValueError(f"{key} has {len(self.file[key])} rows for {len(names)} ids")
        checksums = self._row_checksums.get(key)
        return RowReader(self.file, key, checksums=checksums, names=names, how_to_make=self._how_to_make)

    def close(self) -> None:
        """Close the file."""
        self._opened.close()


def _open_hdf5(path: Path) -> h5py.File:
    try:
        # Files are replaced, never changed. Reading needs no lock, and a read-only folder may refuse one.
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        # This process holds the file open with other settings, which HDF5 requires to be equal for one driver.
        if "flag values don't match" not in str(error) and "already open" not in str(error):
            raise
    return h5py.File(path, "r", driver="stdio", locking=False)
