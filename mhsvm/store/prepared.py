"""The prepared set: images, masks and metadata at one size.

Shape letters: n samples, h w prepared size in pixels.
"""

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mhsvm.store.hdf5 import AttributeValue, read_attributes, read_strings, write_attributes, write_strings
from mhsvm.store.new_file import new_file
from mhsvm.store.ratings import Rating, RatingWriter, read_ratings
from mhsvm.store.rows import Rows, RowWriter
from mhsvm.store.saved_file import SavedFile
from mhsvm.text_file import encode

FORMAT = "mhsvm-set"
# Name of the file in folders of synthetic images, and attribute of a set that was prepared from them.
SYNTHETIC_MARKER, SYNTHETIC = "SYNTHETIC.txt", "synthetic"


@dataclass(frozen=True)
class Sample:
    """An image and its mask at the prepared size.

    Attributes:
        id: Unique id in the set.
        image: uint8 (h, w, 3).
        mask: uint8 (h, w): lesion coverage 0..255, or class indices with 255 = ignore.
        original_size: (height, width) before resizing.
        subset: "train", "val", "test", or "" if the source has no subsets.
        group: Patient or lesion, or "" if unknown.
        ratings: The masks of several raters, if the set has them; see `mhsvm.store.ratings`.
    """

    id: str
    image: np.ndarray
    mask: np.ndarray
    original_size: tuple[int, int]
    subset: str = ""
    group: str = ""
    ratings: tuple[Rating, ...] = ()


class PreparedSet:
    """A prepared set, open for reading. Images and masks are read on demand.

    Attributes:
        path: The file.
        name: Name of the data set, such as "isic2017".
        ids, subsets, groups: A string for each sample; see `Sample`.
        original_sizes: int32 (n, 2), height and width before resizing.
        size: (h, w).
        num_classes: 1 for masks with coverage 0..255; k >= 2 for class indices 0..k-1 and 255 = ignore.
        checksum: sha256 in hex of the ids, images and masks, those of raters included.
        ratings: The masks of several raters, `masks` being the primary ones; None for a set with one mask an image.
        source: Name of the source that it was prepared from; for sets of older versions, the name.
        is_synthetic: Whether images are generated, by `mhsvm synthesize`.
        attributes: Origin of the set: source checksums, resizing methods, package version.
    """

    def __init__(self, saved: SavedFile) -> None:
        file, self._saved, self.path = saved.file, saved, saved.path
        self.name = str(file.attrs["name"])
        self.ids = read_strings(file, "ids")
        self.subsets = read_strings(file, "subsets")
        self.groups = read_strings(file, "groups")
        self.original_sizes = file["original_sizes"][:]
        self._images, self._masks = saved.rows("images", self.ids), saved.rows("masks", self.ids)
        self.ratings = read_ratings(saved, self.ids)
        h, w = self._masks.shape
        self.size: tuple[int, int] = h, w
        self.num_classes = int(file.attrs["num_classes"])
        self.checksum = str(file.attrs["checksum"])
        self.attributes = read_attributes(file)
        self.source = str(self.attributes.get("source", self.name))
        self.is_synthetic = SYNTHETIC in self.attributes

    @classmethod
    def open(cls, path: str | Path) -> "PreparedSet":
        """Open a file that `write_set` wrote.

        Raises:
            FileNotFoundError: The file does not exist.
            OSError: It is a folder, or must not be read.
            ValueError: The file is not HDF5, is damaged, or has another format or schema version.
        """
        with ExitStack() as stack:
            saved = stack.enter_context(closing(SavedFile(path, format=FORMAT, how_to_make="mhsvm prepare")))
            with saved.reading():
                prepared = cls(saved)
            stack.pop_all()
        return prepared

    def __len__(self) -> int:
        return len(self.ids)

    def __enter__(self) -> "PreparedSet":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __reduce__(self) -> tuple[object, ...]:
        # An HDF5 handle cannot be pickled: another process opens the file again.
        return (PreparedSet.open, (self.path,))

    def close(self) -> None:
        self._saved.close()

    def images(self, rows: Rows) -> np.ndarray:
        """Read images by a slice or by indices in any order, uint8 (len(rows), h, w, 3).

        Raises:
            ValueError: An image is damaged.
        """
        return self._images.read(rows)

    def masks(self, rows: Rows) -> np.ndarray:
        """Read masks by a slice or by indices in any order, uint8 (len(rows), h, w).

        Raises:
            ValueError: A mask is damaged.
        """
        return self._masks.read(rows)


def write_set(
    path: str | Path,
    samples: Iterable[Sample],
    *,
    name: str,
    size: tuple[int, int],
    num_classes: int,
    attributes: dict[str, AttributeValue],
    total: int,
    raters: Sequence[str] = (),
) -> str:
    """Write a prepared set sample by sample; the file gets its name when it is complete.

    Args:
        path: The file to write or replace.
        samples: `total` samples with unique ids, in the order of the set.
        name: Name of the data set.
        size: (h, w) of all images and masks, in pixels.
        num_classes: 1 for coverage masks, k >= 2 for class indices.
        attributes: Descriptions for `PreparedSet.attributes`.
        total: Number of samples, at least 1.
        raters: Names of the raters, in their order, if samples have the masks of several.
    Returns:
        The checksum of the set.
    Raises:
        OSError: The disk is full, or refuses the file for another reason. Nothing is left of it.
        ValueError: A sample has another size or type, an id is repeated, or the number of samples is not `total`.
    """
    h, w = size
    if total < 1:
        raise ValueError(f"a set has at least one sample; {total} were announced")
    checksum = hashlib.sha256(f"{num_classes} {h} {w}\n".encode())
    columns: list[tuple[str, str, str, tuple[int, int]]] = []
    seen: set[str] = set()
    with new_file(path) as new:
        images, masks = RowWriter(new, "images", (h, w, 3)), RowWriter(new, "masks", (h, w), compress=True)
        ratings = RatingWriter(new, raters, size) if raters else None
        for row, sample in enumerate(samples):
            _check_sample(sample, (h, w))
            if row == total or sample.id in seen:
                raise ValueError(f"{total} samples with different ids were announced; {sample.id!r} is one too many")
            images.append(sample.image[None])
            masks.append(sample.mask[None])
            for part in (encode(f"{sample.id}\n"), sample.image.tobytes(), sample.mask.tobytes()):
                checksum.update(part)
            if ratings is not None:
                ratings.append(row, sample.ratings)
                for rating in sample.ratings:
                    checksum.update(encode(f"{rating.rater}\n") + rating.mask.tobytes())
            seen.add(sample.id)
            columns.append((sample.id, sample.subset, sample.group, sample.original_size))
        if len(columns) != total:
            raise ValueError(f"{total} samples were announced, {len(columns)} were given")
        *strings, original_sizes = zip(*columns, strict=True)
        for key, values in zip(("ids", "subsets", "groups"), strings, strict=True):
            write_strings(new.file, key, values)
        new.file["original_sizes"] = np.array(original_sizes, np.int32)
        own: dict[str, AttributeValue] = {"name": name, "num_classes": num_classes, "checksum": checksum.hexdigest()}
        images.close()
        masks.close()
        if ratings is not None:
            ratings.close()
        write_attributes(new.file, FORMAT, own, attributes)
    return checksum.hexdigest()


def _check_sample(sample: Sample, size: tuple[int, int]) -> None:
    rated = ((f"mask by {rating.rater}", rating.mask, size) for rating in sample.ratings)
    for kind, array, shape in (("image", sample.image, (*size, 3)), ("mask", sample.mask, size), *rated):
        if array.shape != shape or array.dtype != np.uint8:
            raise ValueError(
                f"the {kind} of {sample.id!r} must be uint8 {shape}; got {array.dtype} {array.shape}: resize it first"
            )
