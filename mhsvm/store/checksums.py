"""Checksums of everything that an HDF5 file of ours holds, verified when it is read.

Rows of images, masks and probabilities: the dataset NAME has its rows' CRC-32 in `checksums/NAME`, uint32 (n,).

Everything else (names, texts, sizes, attributes, and the tables by which HDF5 finds them): the dataset
`checksums/file`, whose bytes are the last ones of the file, ends with the places of the rows and the CRC-32 of all
other bytes. It is verified before HDF5 reads a byte, because the library may read a damaged table without end.

    uint64 (m, 2)   offset and size of each stretch of stored rows, in the order of the file
    uint64          m
    uint32          CRC-32 of all bytes outside of these stretches, up to this field
    12 bytes        mark

HDF5's own filter fletcher32 would protect the rows alone.
"""

import io
import struct
import zlib
from collections.abc import Iterable, Iterator
from typing import Protocol

import h5py
import numpy as np

GROUP = "checksums"
_FILE = "file"
# Attribute of a file with checksums, so that one that lost its end is not taken for one without.
_METHOD = ("checksums", "crc32")
_MARK = b"mhsvm-crc32\n"
_FOOTER = struct.Struct(f"<QI{len(_MARK)}s")
# HDF5 gives space of its own, at the end of the file, to larger datasets than this.
_LEAST_SIZE = 4096
# Offset and size of the flags that HDF5 sets while a program has the file open for writing.
_FLAGS = (20, 4)
_BLOCK = 2**20


class _Binary(Protocol):
    def seek(self, offset: int, whence: int = 0, /) -> int: ...
    def read(self, size: int, /) -> bytes | None: ...


class _Writable(_Binary, Protocol):
    def write(self, data: memoryview, /) -> int | None: ...


def row_checksum(row: np.ndarray) -> int:
    """CRC-32 of an array's bytes."""
    return zlib.crc32(np.ascontiguousarray(row).data)


def reserve_end(file: h5py.File, keys: Iterable[str]) -> np.ndarray:
    """Make room for the checksum of a file that is complete otherwise.

    Args:
        file: The open file.
        keys: Names of the arrays that are read by rows.
    Returns:
        Offset and size of each stretch of stored rows, uint64 (m, 2), for `write_end`.
    """
    file.attrs[_METHOD[0]] = _METHOD[1]
    file.flush()
    chunks = []
    for key in keys:
        dataset = file[key]
        origin = (0,) * (dataset.ndim - 1)
        chunks += [dataset.id.get_chunk_info_by_coord((row, *origin)) for row in range(len(dataset))]
    stretches = [[*_FLAGS]]
    for chunk in sorted(chunks, key=lambda chunk: chunk.byte_offset):
        if sum(stretches[-1]) == chunk.byte_offset:
            stretches[-1][1] += chunk.size
        else:
            stretches.append([chunk.byte_offset, chunk.size])
    num_bytes = max(16 * len(stretches) + _FOOTER.size, _LEAST_SIZE)
    file.require_group(GROUP)[_FILE] = np.zeros(num_bytes, np.uint8)
    return np.array(stretches, "<u8")


def write_end(file: _Writable, rows: np.ndarray) -> None:
    """Write the checksum into the end of a file that HDF5 has closed.

    Args:
        file: The file, open for reading and writing.
        rows: From `reserve_end`.
    """
    size = file.seek(0, io.SEEK_END) - rows.nbytes - _FOOTER.size
    checksum = _checksum_outside(file, rows, size)
    file.seek(size)
    file.write(memoryview(rows.tobytes() + _FOOTER.pack(len(rows), checksum, _MARK)))


def verify_end(file: _Binary) -> bool:
    """Verify everything but the rows.

    Returns:
        Whether the file ends with a checksum; one of an older version does not.
    Raises:
        ValueError: The content differs from its checksum.
    """
    size = file.seek(0, io.SEEK_END) - _FOOTER.size
    if size < 0:
        return False
    file.seek(size)
    num_rows, checksum, mark = _FOOTER.unpack(file.read(_FOOTER.size) or b"")
    if mark != _MARK:
        return False
    size -= 16 * num_rows
    rows = np.zeros((0, 2), "<u8")
    if size >= 0:
        file.seek(size)
        rows = np.frombuffer(file.read(16 * num_rows) or b"", "<u8").reshape(-1, 2)
    if size < 0 or _checksum_outside(file, rows, size) != checksum:
        raise ValueError("its names, sizes, attributes or tables do not match their checksum")
    return True


def row_checksums(file: h5py.File, *, verified: bool) -> dict[str, np.ndarray]:
    """Read the checksums of each array's rows, uint32 (n,); a file of an older version has none.

    Args:
        file: The open file.
        verified: Whether the file ends with a checksum.
    Raises:
        ValueError: The file should end with one.
    """
    method = file.attrs.get(_METHOD[0])
    if (method == _METHOD[1]) != verified:
        raise ValueError("it does not end with its checksum: its end is missing, or the file was changed")
    return {key: dataset[:] for key, dataset in file[GROUP].items() if key != _FILE} if verified else {}


def _checksum_outside(file: _Binary, rows: np.ndarray, size: int) -> int:
    checksum = 0
    for start, stop in _between(rows.tolist(), size):
        file.seek(start)
        while start < stop:
            block = file.read(min(_BLOCK, stop - start))
            if not block:
                break
            checksum, start = zlib.crc32(block, checksum), start + len(block)
    return zlib.crc32(rows.tobytes() + struct.pack("<Q", len(rows)), checksum)


def _between(rows: Iterable[tuple[int, int]], size: int) -> Iterator[tuple[int, int]]:
    """Start and stop of all bytes outside of the rows; of a damaged table, anything within the file."""
    end = 0
    for offset, length in rows:
        yield end, min(offset, size)
        end = min(offset + length, size)
    yield end, size
