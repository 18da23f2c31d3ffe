"""The conversion of pairs of files to samples of one size."""

from collections.abc import Mapping

import numpy as np

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.class_levels import LevelTally
from mhsvm.prepare.decode import IGNORE, decode_image, decode_mask
from mhsvm.prepare.facts import Facts
from mhsvm.prepare.headers import UNREADABLE, note_sizes
from mhsvm.prepare.mask_problems import note_mask_error
from mhsvm.prepare.pairs import Pair
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.resize import mask_coverage, resize_classes, resize_image
from mhsvm.store import Rating, Sample


class Conversion:
    """Decodes, checks and resizes pairs, and collects the facts about their masks.

    Args:
        size: (h, w) of the samples in pixels.
        num_classes: 1 for lesion masks, k >= 2 for class indices.
        threshold: As in `decode_mask`.
        groups: Group of an id, if it has one.
        problems: Receives files that cannot be read, masks with wrong levels, and pairs of different sizes.
    Attributes:
        levels: Counts the masks at their own sizes by their levels.
        facts: Facts about the images and masks.
        num_empty: Number of prepared masks without lesion (no class but 0).
    """

    def __init__(
        self,
        size: tuple[int, int],
        *,
        num_classes: int,
        threshold: float | None,
        groups: Mapping[str, str],
        problems: Problems,
    ) -> None:
        self._size, self._num_classes, self._threshold = size, num_classes, threshold
        self._groups, self._problems = groups, problems
        self._occurs = np.zeros(IGNORE + 1, bool)
        self.levels = LevelTally(num_classes)
        self.facts = Facts(size, num_classes)
        self.num_empty = 0

    @property
    def absent(self) -> tuple[int, ...]:
        """Classes from 1 on that no prepared mask holds; for lesion masks, 1 if none shows a lesion."""
        return tuple(label for label in range(1, max(self._num_classes, 2)) if not self._occurs[label])

    def convert(self, pair: Pair) -> Sample | None:
        """Convert a pair, or add its problems and return None; several threads can call this."""
        image, masks = self._read_image(pair), {file: self._read_mask(file) for file in pair.masks}
        if image is None:
            return None
        fitting: dict[SourceFile, np.ndarray] = {}
        for file, mask in masks.items():
            if mask is None:
                continue
            if image.shape[:2] != mask.shape:
                note_sizes(pair.id, image.shape, mask.shape, self._problems)
                continue
            fitting[file] = mask
        if len(fitting) < len(masks):
            return None
        for part in pair.parts:
            fitting[pair.mask] = np.maximum(fitting[pair.mask], fitting.pop(part))
        resized = {file: self._resize(mask) for file, mask in fitting.items()}
        ratings = tuple(Rating(each.rater, resized[each.file], each.tool, each.skill) for each in pair.rated)
        group, (h, w, _) = self._groups.get(pair.id, ""), image.shape
        return Sample(
            pair.id, resize_image(image, self._size), resized[pair.mask], (h, w), pair.subset, group, ratings=ratings
        )

    def _resize(self, mask: np.ndarray) -> np.ndarray:
        if self._num_classes == 1:
            return mask_coverage(mask, self._size)
        return resize_classes(mask, self._size, self._num_classes)

    def add(self, sample: Sample) -> None:
        """Add a sample that is written to the facts; one thread calls this."""
        is_binary = self._num_classes == 1
        lesion = sample.mask if is_binary else sample.mask % IGNORE
        self.num_empty += not lesion.any()
        # a pixel of a lesion mask is lesion from half coverage on
        self._occurs[(sample.mask >= 128).astype(np.uint8) if is_binary else sample.mask] = True
        self.facts.add_mask(sample)

    def _read_image(self, pair: Pair) -> np.ndarray | None:
        try:
            content = pair.image.read()
            self.facts.add_file(pair.id, content)
            return decode_image(content)
        except ValueError as error:
            self._problems.add(UNREADABLE, f"{pair.image.name}: {error}")
            return None

    def _read_mask(self, file: SourceFile) -> np.ndarray | None:
        try:
            mask = decode_mask(file.read(), self._num_classes, self._threshold)
        except ValueError as error:
            note_mask_error(error, file.name, self._problems, num_classes=self._num_classes)
            return None
        self.levels.add(file.name, mask)
        return mask
