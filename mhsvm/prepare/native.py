"""Masks at the original sizes of the images, for a prepared set with another size."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from mhsvm.files import StrPath
from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.class_levels import LevelTally
from mhsvm.prepare.copies import without_copies
from mhsvm.prepare.decode import decode_mask
from mhsvm.prepare.mask_files import mask_files, masks_by_id
from mhsvm.prepare.mask_problems import note_mask_error
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.raters import RaterNames, by_rater
from mhsvm.prepare.sources import SOURCES
from mhsvm.prepare.walk import open_sources
from mhsvm.threads import image_threads

NO_NATIVE = Rule("test image without a native mask", "give the folder or zip file with the official masks of this set")


class NativeMasks:
    """Masks by id, read on demand.

    Args:
        files: Mask files of each id: one, or several parts of a lesion mask.
        num_classes: 1 for lesion masks, k >= 2 for class indices.
        threshold: As in `decode_mask`.
    """

    def __init__(
        self, files: Mapping[str, Sequence[SourceFile]], num_classes: int, threshold: float | None = None
    ) -> None:
        self._files = files
        self._num_classes = num_classes
        self._threshold = threshold

    def __iter__(self) -> Iterator[str]:
        return iter(self._files)

    def read(self, image_id: str) -> np.ndarray:
        """Read a mask, uint8 (H, W): 0 and 1, or class indices and 255. Several threads can call this."""
        parts = [decode_mask(file.read(), self._num_classes, self._threshold) for file in self._files[image_id]]
        if len({part.shape for part in parts}) > 1:
            raise ValueError("the parts of the mask have different sizes")
        return parts[0] if len(parts) == 1 else np.maximum.reduce(parts)

    def check(self, image_id: str, tally: LevelTally, problems: Problems) -> None:
        """Add the mask of an id to a tally, or a problem if it cannot be read."""
        name = self._files[image_id][0].name
        try:
            tally.add(name, self.read(image_id))
        except ValueError as error:
            note_mask_error(error, name, problems, num_classes=self._num_classes)


@contextmanager
def open_native_masks(
    sources: Sequence[StrPath],
    ids: Sequence[str],
    *,
    source: str,
    num_classes: int,
    threshold: float | None = None,
    mask_suffix: str | None = None,
    merge_masks: bool = False,
    raters: Sequence[str] | None = None,
    only_names: bool = False,
) -> Iterator[NativeMasks]:
    """Find the masks of some ids in folders and zip files, and check that each can be read.

    Args:
        sources: Folders and zip files; other files in them are ignored.
        ids: Ids of the required masks.
        source: Source of the prepared set; files of another year of ISIC are ignored. An unknown one is a folder.
        num_classes: 1 for lesion masks, k >= 2 for class indices.
        only_names: Check only that each is there, which is quick.
        threshold: Fraction of full scale from which gray levels are lesion; None refuses them.
        mask_suffix: Ending of the masks' names, besides the usual ones.
        merge_masks: Whether several masks of an id are parts of one.
        raters: Names of raters, see `mhsvm.prepare.raters.RaterNames`; of several masks of an image, the primary one is
            taken.
    Yields:
        The masks, which can be read until the block ends.
    Raises:
        ValueError: Masks are missing, repeated or unreadable; all of them are listed.
    """
    problems = Problems()
    described = SOURCES[source if source in SOURCES else "folder"]
    with open_sources([Path(path) for path in sources], problems) as files:
        fitting = [file for file in files if not described.leaves_out(file.name)]
        names = RaterNames(described, raters)
        if described.rater_pattern is not None:
            # in whichever folders masks and images are
            fitting = [file for file in fitting if names.read(file) is not None]
        by_name = mask_files(fitting, problems, kind="native masks", mask_suffix=mask_suffix)
        groups = list(by_rater(by_name, names).values())
        if described.official:
            groups = without_copies(groups, problems)
        masks: dict[str, list[SourceFile]] = {}
        # the masks of the first raters replace those of later ones, and masks without a rater all of them
        for own in reversed(groups):
            masks |= masks_by_id(own, set(ids), problems, mask_suffix=mask_suffix, merge_masks=merge_masks)
        for image_id in ids:
            if image_id not in masks:
                problems.add(NO_NATIVE, image_id)
        found = {image_id: masks[image_id] for image_id in ids if image_id in masks}
        native = NativeMasks(found, num_classes, threshold)
        tally = LevelTally(num_classes)
        with image_threads() as pool:
            list(pool.map(partial(native.check, tally=tally, problems=problems), () if only_names else native))
        tally.note_lesion_masks(problems, "native masks")
        problems.raise_if_any("the native masks have problems, and nothing was measured:")
        yield native
