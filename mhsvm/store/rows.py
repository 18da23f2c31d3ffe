"""Arrays of an HDF5 file that are written and read by rows, each with its checksum."""

from collections.abc import Sequence

import h5py
import numpy as np

from mhsvm.store.checksums import GROUP, row_checksum
from mhsvm.store.hdf5 import damage_named
from mhsvm.store.new_file import NewFile

Rows = slice | Sequence[int] | np.ndarray

# Masks and probabilities shrink more than tenfold with the filter that every HDF5 reader has, and images hardly; the
# lowest level is read fastest (73 us for a mask of 256 x 256, 153 at level 4) and makes the file 0.1 % larger.
MAP_FILTER = {"compression": "gzip", "compression_opts": 1}


class RowWriter:
    """Appends rows of uint8 to a new array.

    Args:
        new: The file.
        key: Name of the array.
        shape: Shape of a row.
        compress: Compress the rows, which are masks or probabilities.
    """

    def __init__(self, new: NewFile, key: str, shape: tuple[int, ...], *, compress: bool = False) -> None:
        self._new = new
        options = MAP_FILTER if compress else {}
        # Chunks are single rows, so that a row is read alone.
        self._dataset = new.file.create_dataset(
            key, (0, *shape), np.uint8, maxshape=(None, *shape), chunks=(1, *shape), **options
        )
        self._checksums: list[int] = []
        self._key = key
        new.rows.append(key)

    def __len__(self) -> int:
        return len(self._checksums)

    def append(self, rows: np.ndarray) -> None:
        """Write rows, uint8 (b, *shape).

        Raises:
            OSError: The file cannot be written.
        """
        start = len(self)
        self._dataset.resize(start + len(rows), axis=0)
        self._dataset[start:] = rows
        self._checksums += map(row_checksum, rows)
        self._new.check()

    def close(self) -> None:
        """Write the checksums."""
        self._new.file.require_group(GROUP)[self._key] = np.array(self._checksums, np.uint32)


class RowReader:
    """Reads rows by a slice or by indices, in any order and with repetitions.

    Args:
        file: The open file.
        key: Name of the array.
        checksums: Checksum of each row, uint32 (n,); None reads a file of an older version, which has none.
        names: Name of each row, for messages.
        how_to_make: Command that makes such a file, for messages.
    """

    def __init__(
        self, file: h5py.File, key: str, *, checksums: np.ndarray | None, names: Sequence[str], how_to_make: str
    ) -> None:
        self._path, self._key, self._names, self._how_to_make = file.filename, key, names, how_to_make
        self._dataset = file[key]
        self._checksums = checksums
        # rows that are stored as they are need none of HDF5's selections, which take as long as the reading
        is_stored_as_it_is = self._dataset.id.get_create_plist().get_nfilters() == 0 and self._dataset.dtype == np.uint8
        self._is_plain = is_stored_as_it_is and self._dataset.chunks == (1, *self.shape)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of a row."""
        return self._dataset.shape[1:]

    def read(self, rows: Rows) -> np.ndarray:
        """Read rows, (len(rows), *shape).

        Raises:
            ValueError: The rows are no integers, or damaged.
            IndexError: There is no such row.
        """
        if isinstance(rows, slice):
            rows = np.arange(len(self._dataset))[rows]
        rows = np.asarray(rows)
        if rows.size and not np.issubdtype(rows.dtype, np.integer):
            raise ValueError(
                f"rows must be a slice or integer indices; got {rows.dtype}: use np.flatnonzero for a mask"
            )
        out = np.empty((len(rows), *self.shape), self._dataset.dtype)
        for place, row in enumerate(rows.tolist()):
            if not 0 <= row < len(self._dataset):
                raise IndexError(f"rows must be in 0..{len(self._dataset) - 1}; got {row}")
            with damage_named(f"{self._key} of {self._names[row]} (row {row}) in {self._path}", self._how_to_make):
                self._read_row(row, out[place])
        return out

    def _read_row(self, row: int, out: np.ndarray) -> None:
        if self._is_plain:
            self._dataset.id.read_direct_chunk((row, *(0 for _ in self.shape)), out=out.reshape(-1))
        else:
            # a selection in h5py requires sorted rows, so that each is read alone
            self._dataset.read_direct(out, np.s_[row])
        if self._checksums is not None and row_checksum(out) != self._checksums[row]:
            raise OSError("the content does not match its checksum")
