"""Shared by all HDF5 files: opening with a clear error, schema, attributes, rows in any order."""

from collections.abc import Sequence
from pathlib import Path

import h5py
import numpy as np

SCHEMA_VERSION = 1

Rows = slice | Sequence[int] | np.ndarray
AttributeValue = str | int | float

# Masks and probabilities shrink more than tenfold with the cheapest filter; images do not.
MAP_FILTER = {"compression": "lzf"}


def open_for_reading(path: str | Path, format: str, how_to_make: str) -> h5py.File:
    """Open a complete file of the given format and of this schema version.

    Args:
        path: The file.
        format: Required value of its attribute `format`.
        how_to_make: Command that makes such a file, for the error messages.
    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is not HDF5, is damaged, or has another format or schema version.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}; make it with `{how_to_make}`")
    if not h5py.is_hdf5(path):
        raise ValueError(f"{path} is not an HDF5 file; make it with `{how_to_make}`")
    try:
        file = _open(path)
    except OSError as error:
        raise ValueError(f"{path} is truncated or damaged ({error}); make it again with `{how_to_make}`") from error
    found = file.attrs.get("format"), file.attrs.get("schema_version")
    if found == (format, SCHEMA_VERSION):
        return file
    file.close()
    if found[0] == format:
        raise ValueError(
            f"{path} has schema version {found[1]}, this version of mhsvm reads {SCHEMA_VERSION}; "
            f"make it again with `{how_to_make}`"
        )
    raise ValueError(f"{path} must be a file of format {format!r}; its format is {found[0]!r}")


def _open(path: Path) -> h5py.File:
    try:
        # Files are replaced, never changed. Reading needs no lock, and a read-only folder may refuse one.
        return h5py.File(path, "r", locking=False)
    except OSError as error:
        # This process holds the file open with other settings, which HDF5 requires to be equal for one driver.
        if "flag values don't match" not in str(error):
            raise
    return h5py.File(path, "r", driver="stdio", locking=False)


def write_attributes(
    file: h5py.File, format: str, own: dict[str, AttributeValue], foreign: dict[str, AttributeValue]
) -> None:
    """Write the attributes of the schema, and descriptive ones in a group of their own."""
    file.attrs.update({"format": format, "schema_version": SCHEMA_VERSION, **own})
    file.create_group("attributes").attrs.update(foreign)


def read_attributes(file: h5py.File) -> dict[str, AttributeValue]:
    """Read the descriptive attributes as plain Python values."""
    items = file["attributes"].attrs.items()
    return {key: value.item() if isinstance(value, np.generic) else value for key, value in items}


def write_strings(file: h5py.File, key: str, values: Sequence[str]) -> None:
    file.create_dataset(key, data=list(values), dtype=h5py.string_dtype())


def read_strings(file: h5py.File, key: str) -> tuple[str, ...]:
    return tuple(file[key].asstr()[:])


def read_rows(dataset: h5py.Dataset, rows: Rows) -> np.ndarray:
    """Read rows by a slice or by indices, in any order and with repetitions."""
    if isinstance(rows, slice):
        rows = np.arange(len(dataset))[rows]
    rows = np.asarray(rows)
    if rows.size and not np.issubdtype(rows.dtype, np.integer):
        raise ValueError(f"rows must be a slice or integer indices; got {rows.dtype}: use np.flatnonzero for a mask")
    out = np.empty((len(rows), *dataset.shape[1:]), dataset.dtype)
    # Chunks are single rows, so reading rows one by one costs nothing; a selection in h5py requires sorted rows.
    for place, row in enumerate(rows.tolist()):
        if not 0 <= row < len(dataset):
            raise IndexError(f"rows must be in 0..{len(dataset) - 1}; got {row}")
        dataset.read_direct(out, np.s_[row], np.s_[place])
    return out
