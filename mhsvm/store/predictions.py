"""Predictions on a prepared set: `predictions.h5` of a run folder.

Shape letters: n images, b batch, k classes, h w size in pixels.
"""

import io
from collections.abc import Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from types import TracebackType

import numpy as np

from mhsvm.store.hdf5 import AttributeValue, read_attributes, read_strings, write_attributes, write_strings
from mhsvm.store.new_file import new_file
from mhsvm.store.rows import Rows, RowWriter
from mhsvm.store.saved_file import SavedFile

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

    def __init__(self, saved: SavedFile) -> None:
        file, self._saved, self.path = saved.file, saved, saved.path
        self.ids = read_strings(file, "ids")
        self._probability = saved.rows("probability", self.ids)
        h, w = self._probability.shape[-2:]
        self.size: tuple[int, int] = h, w
        self.num_classes = int(file.attrs["num_classes"])
        self.set_name = str(file.attrs["set_name"])
        self.set_checksum = str(file.attrs["set_checksum"])
        self.attributes = read_attributes(file)

    @classmethod
    def open(cls, path: str | Path | bytes) -> "PredictionSet":
        """Open a file that `PredictionWriter` wrote, or its bytes.

        Raises:
            FileNotFoundError: The file does not exist.
            OSError: It is a folder, or must not be read.
            ValueError: The file is not HDF5, is damaged, or has another format or schema version.
        """
        with ExitStack() as stack:
            saved = stack.enter_context(closing(SavedFile(path, format=FORMAT, how_to_make="mhsvm test")))
            with saved.reading():
                predictions = cls(saved)
            stack.pop_all()
        return predictions

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> "PredictionSet":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        self._saved.close()

    def probability(self, rows: Rows) -> np.ndarray:
        """Read probabilities in units of 1/255, uint8 (len(rows), h, w) or (len(rows), k, h, w).

        Raises:
            ValueError: A row is damaged.
        """
        return self._probability.read(rows)


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
            self._new = stack.enter_context(new_file(self._path))
            self._probability = RowWriter(self._new, "probability", self._shape, compress=True)
            self._open = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if error is None:
            with self._open:
                self._probability.close()
                write_strings(self._new.file, "ids", list(self._ids))
                write_attributes(self._new.file, FORMAT, self._own, self._foreign)
        else:
            self._open.__exit__(kind, error, traceback)

    def append(self, ids: Sequence[str], probability: np.ndarray) -> None:
        """Add a batch.

        Args:
            ids: Id of each image.
            probability: (b, h, w), or (b, k, h, w) for k classes. uint8 in units of 1/255, or floating point in 0..1,
                which is rounded to these units.
        Raises:
            OSError: The disk is full, or refuses the file for another reason.
            ValueError: The shape or range is wrong, or an id is repeated.
        """
        expected = (len(ids), *self._shape)
        if probability.shape != expected:
            raise ValueError(f"probabilities of {len(ids)} ids must have the shape {expected}; got {probability.shape}")
        repeated = [id_ for place, id_ in enumerate(ids) if id_ in self._ids or id_ in ids[:place]]
        if repeated:
            raise ValueError(f"every image is predicted once; repeated: {', '.join(repeated)}")
        self._probability.append(_in_255ths(probability))
        self._ids.update(dict.fromkeys(ids))


def _in_255ths(probability: np.ndarray) -> np.ndarray:
    if probability.dtype == np.uint8:
        return probability
    low, high = probability.min(initial=0), probability.max(initial=0)
    if not (low >= 0 and high <= 1):
        raise ValueError(f"probabilities must be in 0..1; got {low:g}..{high:g}: apply the sigmoid or softmax first")
    return np.rint(probability * 255).astype(np.uint8)
