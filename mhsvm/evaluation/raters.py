"""Predictions against each of several raters and their consensus, and the raters against each other.

A comparison is of a mask with a reference: the prediction or a rater, against a rater, a consensus, or the majority of
all raters but one. Raters and prediction are measured alike, so that their agreement can be compared.
Shape letters: h w size in pixels.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from mhsvm.data.consensus import consensus_mask, consensus_names, majority_mask, staple_missing
from mhsvm.evaluation.image_score import ImageScore, join_scores, score_image
from mhsvm.metrics import Arguments, Scores

PREDICTION = "prediction"
# Name of a comparison: mask and reference.
Names = tuple[str, str]


def all_but(rater: str) -> str:
    """Name of the majority of all other raters of an image."""
    return f"all but {rater}"


@dataclass(frozen=True)
class RaterSettings:
    """How raters are compared.

    Attributes:
        raters: Names of all raters, in their order.
        num_classes: 1, or k.
        boundary: Measure boundaries, which takes longer.
        arguments: Arguments of metrics, see `mhsvm.metrics.metric_arguments`.
    """

    raters: tuple[str, ...]
    num_classes: int
    boundary: bool
    arguments: Arguments | None = None

    @property
    def consensus(self) -> tuple[str, ...]:
        """The ways to make one mask of several that can run here."""
        names = consensus_names(self.num_classes)
        return tuple(name for name in names if name != "staple" or staple_missing() is None)

    @property
    def note(self) -> str | None:
        """The reason why STAPLE is left out; None if it is not."""
        if "staple" not in consensus_names(self.num_classes):
            return "STAPLE is for lesion masks, and left out for several classes"
        missing = staple_missing()
        return None if missing is None else f"STAPLE is left out: {missing}"


def compare_raters(
    pred: np.ndarray, masks: Mapping[str, np.ndarray], settings: RaterSettings
) -> dict[Names, ImageScore]:
    """Make all comparisons of one image.

    Args:
        pred: uint8 (h, w): 1 is lesion, or class indices.
        masks: Masks of the raters of the image, by name, in the same form; with several classes 255 is not counted.
        settings: The settings.
    Returns:
        Scores by mask and reference: the prediction against each rater. With two raters or more, it is also measured
        against each consensus and against the majority of all but each rater, who is measured against it too, and each
        pair of raters is compared.
    """
    pairs: dict[Names, tuple[np.ndarray, np.ndarray]] = {
        (PREDICTION, rater): (pred, mask) for rater, mask in masks.items()
    }
    if len(masks) > 1:
        stacked = np.stack(list(masks.values()))
        for name in settings.consensus:
            pairs[PREDICTION, name] = pred, consensus_mask(name, stacked, settings.num_classes)
        for place, (rater, mask) in enumerate(masks.items()):
            others = majority_mask(np.delete(stacked, place, axis=0), settings.num_classes)
            pairs[PREDICTION, all_but(rater)] = pred, others
            pairs[rater, all_but(rater)] = _without_ignored(mask, others), others
        for first, second in combinations(masks, 2):
            pairs[first, second] = _without_ignored(masks[first], masks[second]), masks[second]
    return {
        names: score_image(
            mask,
            reference,
            num_classes=settings.num_classes,
            boundary=settings.boundary,
            arguments=settings.arguments,
        )
        for names, (mask, reference) in pairs.items()
    }


def _without_ignored(mask: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """A rater's mask as a prediction, which ignores nothing: pixels that it ignores agree with the reference."""
    return np.where(mask == 255, np.where(reference == 255, 0, reference), mask).astype(np.uint8)


class RaterScores:
    """The comparisons of many images.

    Attributes:
        settings: How they were made.
        num_images, num_masks, num_several: Number of images with a rated mask, of these masks, and of images with two
            or more.
    """

    def __init__(self, settings: RaterSettings) -> None:
        self.settings = settings
        self._found: dict[Names, dict[str, ImageScore]] = defaultdict(dict)
        self.num_images = self.num_masks = self.num_several = 0

    def add(self, image_id: str, compared: Mapping[Names, ImageScore]) -> None:
        """Add the comparisons of an image, from `compare_raters`."""
        num_masks = sum(names[0] == PREDICTION and names[1] in self.settings.raters for names in compared)
        self.num_masks += num_masks
        self.num_images += num_masks > 0
        self.num_several += num_masks > 1
        for names, score in compared.items():
            self._found[names][image_id] = score

    def scores(self, mask: str, references: Sequence[str]) -> Scores | None:
        """Scores of a mask against references, a row for each image and reference; None if there is no such image."""
        found = [(id_, score) for name in references for id_, score in self._found.get((mask, name), {}).items()]
        return join_scores([id_ for id_, _ in found], [score for _, score in found]).scores if found else None

    def pairs(self) -> Scores | None:
        """Scores of all pairs of raters, a row for each image and pair; None if there is none."""
        pairs = combinations(self.settings.raters, 2)
        found = [(id_, score) for names in pairs for id_, score in self._found.get(names, {}).items()]
        return join_scores([id_ for id_, _ in found], [score for _, score in found]).scores if found else None

    def __iter__(self) -> Iterator[tuple[str, str, Scores]]:
        """Mask, reference and scores of each comparison: first the prediction, then the raters, in their order."""
        raters = self.settings.raters
        references = [*self.settings.consensus, *raters, *map(all_but, raters)]
        names = [(PREDICTION, reference) for reference in references]
        names += [(rater, all_but(rater)) for rater in raters]
        names += list(combinations(raters, 2))
        for mask, reference in names:
            scores = self.scores(mask, [reference])
            if scores is not None:
                yield mask, reference, scores
