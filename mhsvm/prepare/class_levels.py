"""Lesion masks given as class masks: 255 means ignore there, so that a lesion of 255 vanishes without an error."""

import threading

import numpy as np

from mhsvm.prepare.decode import IGNORE
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.store import PreparedSet

ONLY_IGNORED = Rule(
    "class masks that hold nothing but 0 and 255",
    "in a class mask 255 means ignore. If they are lesion masks, give `num_classes` 1 or leave it out; if they hold "
    "classes, save class 1 as 1",
)


class LevelTally:
    """Counts class masks that hold no class but the background; several threads can add to it.

    Args:
        num_classes: 1 for lesion masks, which are not counted, k >= 2 for class indices.
    Attributes:
        num_masks: Number of masks.
        num_only_ignored: Number of masks that hold 255 (ignore) and no class but the background.
    """

    def __init__(self, num_classes: int) -> None:
        self._num_classes = num_classes
        self._lock = threading.Lock()
        self._has_class = False
        self._example = ""
        self.num_masks = self.num_only_ignored = 0

    def add(self, name: str, mask: np.ndarray) -> None:
        """Add a mask, uint8 (h, w) of class indices and 255; `name` is for messages."""
        if self._num_classes == 1:
            return
        has_class = holds_class(mask)
        only_ignored = not has_class and bool((mask == IGNORE).any())
        with self._lock:
            self.num_masks += 1
            self._has_class |= has_class
            self.num_only_ignored += only_ignored
            self._example = self._example or (name if only_ignored else "")

    def note_lesion_masks(self, problems: Problems, kind: str) -> bool:
        """Add a problem, and return True, if no mask holds a class and some hold 255: these are lesion masks.

        Args:
            problems: Receives the problem.
            kind: The masks in the message, such as "masks".
        """
        found = not self._has_class and self.num_only_ignored > 0
        if found:
            problems.add(ONLY_IGNORED, f"all {self.num_masks} {kind}, such as {self._example}")
        return found


def holds_class(mask: np.ndarray) -> bool:
    """Whether a class mask, uint8, holds a class but the background."""
    return bool(((mask > 0) & (mask < IGNORE)).any())


def check_classes(prepared: PreparedSet) -> None:
    """Check that a prepared set of several classes does not come from lesion masks, as older versions allowed.

    Raises:
        ValueError: Its masks hold nothing but 0 and 255.
    """
    if prepared.num_classes == 1:
        return
    tally = LevelTally(prepared.num_classes)
    for row, image_id in enumerate(prepared.ids):
        (mask,) = prepared.masks([row])
        if holds_class(mask):
            # nearly always the first one
            return
        tally.add(image_id, mask)
    problems = Problems()
    tally.note_lesion_masks(problems, "masks")
    problems.raise_if_any(
        f"{prepared.path} of {prepared.num_classes} classes has no pixel of a class; prepare it again:"
    )
