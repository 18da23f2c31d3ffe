"""Shared by all HDF5 files: schema, attributes, texts, and errors that name the file."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

SCHEMA_VERSION = 1

AttributeValue = str | int | float

# The HDF5 library and h5py raise these for damaged files, by the place of the damage.
_ERRORS = (OSError, RuntimeError, KeyError, ValueError, TypeError, AttributeError, IndexError, MemoryError)


class LinkedContent(ValueError):
    """A file whose content is in other files; the message names it."""


@contextmanager
def damage_named(path: Path | str, how_to_make: str) -> Iterator[None]:
    """Name the file in the errors that the HDF5 library raises in the block.

    Raises:
        ValueError: The library could not read the file.
    """
    try:
        yield
    except LinkedContent:
        raise
    except _ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{path} is truncated or damaged ({reason}); make it again with `{how_to_make}`") from error


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


def check_own(file: h5py.File) -> None:
    """Check that everything is in this very file: a link must not open other files of the reader.

    Raises:
        LinkedContent: Something is not.
    """
    groups = [file]
    for group in groups:
        for name in group:
            # our files have groups of datasets, and no deeper ones
            is_link = not isinstance(group.get(name, getlink=True), h5py.HardLink)
            item = None if is_link else group[name]
            if isinstance(item, h5py.Group) and group is file:
                groups.append(item)
            elif not isinstance(item, h5py.Dataset) or item.external or item.is_virtual:
                raise LinkedContent(
                    f"{group.name.rstrip('/')}/{name} of {file.filename} is a link or stored in another file, which is "
                    "not read: copy its content into the file"
                )


def write_strings(file: h5py.File, key: str, values: Sequence[str]) -> None:
    file.create_dataset(key, data=list(values), dtype=h5py.string_dtype())


def read_strings(file: h5py.File, key: str) -> tuple[str, ...]:
    return tuple(file[key].asstr()[:])
