"""Predictions on a prepared set: `predictions.h5` of a run folder.

Shape letters: n images, b batch, k classes, h w size in pixels.
"""

import io
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import h5py
import numpy as np

from mhsvm.files import replace_when_complete
from mhsvm.store.hdf5 import (
    MAP_FILTER,
    AttributeValue,
    Rows,
    open_for_reading,
    read_attributes,
    read_rows,
    read_strings,
    write_attributes,
    write_strings,
)

FORMAT = "mhsvm-predictions"


class PredictionSet:
    """Predictions, open for reading.

    Attributes:
        path: The file.
        ids: Id of each image, in the order of prediction.
        size: (h, w).
        num_classes: 1, or k >= 2.
        set_name, set_checksum: File name and checksum of the prepared set.
        attributes: Descriptions that the writer received.
    """

    def __init__(self, file: h5py.File):
        self._file = file
        self.path = Path(file.filename)
        self.ids = read_strings(file, "ids")
        self.size: tuple[int, int] = file["probability"].shape[-2:]
        self.num_classes = int(file.attrs["num_classes"])
        self.set_name = str(file.attrs["set_name"])
        self.set_checksum = str(file.attrs["set_checksum"])
        self.attributes = read_attributes(file)

    @classmethod
    def open(cls, path: str | Path | bytes) -> "PredictionSet":
        """Open a file that `PredictionWriter` wrote, or its bytes.

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not HDF5, is damaged, or has another format or schema version.
        """
        if isinstance(path, bytes):
            return cls(h5py.File(io.BytesIO(path), "r"))
        return cls(open_for_reading(path, FORMAT, "mhsvm test"))

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> "PredictionSet":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    def probability(self, rows: Rows) -> np.ndarray:
        """Read probabilities in units of 1/255, uint8 (len(rows), h, w) or (len(rows), k, h, w)."""
        return read_rows(self._file["probability"], rows)


class PredictionWriter:
    """Writes predictions batch by batch in a `with` block.

    The file gets its name when the block succeeds. When the block raises, nothing is left.

    Args:
        path: The file to write or replace, or a buffer in memory.
        set_name: File name of the prepared set.
        set_checksum: Checksum of the prepared set.
        size: (h, w).
        num_classes: 1, or k >= 2.
        attributes: Descriptions for `PredictionSet.attributes`.
    """

    def __init__(
        self,
        path: str | Path | io.BytesIO,
        *,
        set_name: str,
        set_checksum: str,
        size: tuple[int, int],
        num_classes: int,
        attributes: dict[str, AttributeValue] | None = None,
    ):
        self._path = path
        self._shape = tuple(size) if num_classes == 1 else (num_classes, *size)
        self._own: dict[str, AttributeValue] = {
            "set_name": set_name,
            "set_checksum": set_checksum,
            "num_classes": num_classes,
        }
        self._foreign = attributes or {}
        self._ids: dict[str, None] = {}

    def __enter__(self) -> "PredictionWriter":
        with ExitStack() as stack:
            target = self._path
            if not isinstance(target, io.BytesIO):
                target = stack.enter_context(replace_when_complete(target))
            self._file = stack.enter_context(h5py.File(target, "w"))
            shape = self._shape
            self._probability = self._file.create_dataset(
                "probability",
                (0, *shape),
                np.uint8,
                maxshape=(None, *shape),
                chunks=(1, *shape),
                **MAP_FILTER,
            )
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            with self._open:
                write_strings(self._file, "ids", list(self._ids))
                write_attributes(self._file, FORMAT, self._own, self._foreign)
        else:
            self._open.__exit__(kind, error, traceback)

    def append(self, ids: Sequence[str], probability: np.ndarray) -> None:
        """Add a batch.

        Args:
            ids: Id of each image.
            probability: (b, h, w), or (b, k, h, w) for k classes. uint8 in units of 1/255, or floating point in 0..1,
                which is rounded to these units.
        Raises:
            ValueError: The shape or range is wrong, or an id is repeated.
        """
        expected = (len(ids), *self._shape)
        if probability.shape != expected:
            raise ValueError(f"probabilities of {len(ids)} ids must have the shape {expected}; got {probability.shape}")
        repeated = [id_ for place, id_ in enumerate(ids) if id_ in self._ids or id_ in ids[:place]]
        if repeated:
            raise ValueError(f"every image is predicted once; repeated: {', '.join(repeated)}")
        start = len(self._probability)
        self._probability.resize(start + len(ids), axis=0)
        self._probability[start:] = _in_255ths(probability)
        self._ids.update(dict.fromkeys(ids))


def _in_255ths(probability: np.ndarray) -> np.ndarray:
    if probability.dtype == np.uint8:
        return probability
    low, high = probability.min(initial=0), probability.max(initial=0)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"probabilities must be in 0..1; got {low:g}..{high:g}: apply the sigmoid or softmax first")
    return np.rint(probability * 255).astype(np.uint8)
