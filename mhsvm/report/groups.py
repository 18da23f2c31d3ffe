"""Metrics of groups of images that share a property, to find where a model fails."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mhsvm.evaluation.scores import describe_scores
from mhsvm.metrics import Scores
from mhsvm.report.skin_tone import tone_labels, tone_of, typology_angle

# A mean over fewer images depends on the images more than on the model.
LEAST_IMAGES = 10
# Name of each class of lesion sizes, and its upper limit as a fraction of the image.
_SIZES = (("below 5 %", 0.05), ("5 to 15 %", 0.15), ("15 to 40 %", 0.4), ("40 % and more", 2.0))


@dataclass(frozen=True)
class CaseFacts:
    """Properties of an image, from its pixels and its ground truth.

    Attributes:
        lesion_fraction: Fraction of the image that is lesion.
        touches_frame: Whether the lesion touches the frame of the image.
        tone_angle: Typology angle of the skin in degrees, see `mhsvm.report.skin_tone`; None if unknown.
    """

    lesion_fraction: float
    touches_frame: bool
    tone_angle: float | None


@dataclass(frozen=True)
class Group:
    """Images that share a property.

    Attributes:
        label: Value of the property.
        rows: Rows of the images in the scores.
        described: Result of `describe_scores` for these images; None if there are too few.
    """

    label: str
    rows: tuple[int, ...]
    described: dict | None


@dataclass(frozen=True)
class Grouping:
    """The images of a test, grouped by one property.

    Attributes:
        title: Name of the property.
        note: Remark for the reader; may be "".
        groups: Groups that are not empty; an image is in at most one.
    """

    title: str
    note: str
    groups: tuple[Group, ...]


def case_facts(image: np.ndarray, target: np.ndarray) -> CaseFacts:
    """Determine the properties of an image, uint8 (h, w, 3).

    Args:
        image: The image.
        target: Its ground truth, uint8 (h, w); 0 is background, 255 is not counted.
    """
    lesion = (target > 0) & (target < 255)
    frame = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    return CaseFacts(float(lesion.mean()), bool(frame.any()), typology_angle(image, target > 0))


def group_cases(facts: Sequence[CaseFacts], scores: Scores) -> tuple[Grouping, ...]:
    """Group images by lesion size, by whether the lesion touches the frame, and by skin tone.

    Args:
        facts: Properties of each image.
        scores: Scores of the same images, in the same order.
    """
    tones = [None if each.tone_angle is None else tone_of(each.tone_angle) for each in facts]
    unknown = tones.count(None)
    left_out = f" {unknown} images show too little skin, or bluish skin." if unknown else ""
    properties = (
        ("lesion size", "as a fraction of the image", [_size_of(each) for each in facts], [name for name, _ in _SIZES]),
        ("lesion and frame", "", [_frame_of(each) for each in facts], ["inside", "touches the frame"]),
        (
            "skin tone",
            f"from uncalibrated images: ITA of the skin beside lesion and vignette.{left_out}",
            tones,
            tone_labels(),
        ),
    )
    return tuple(
        Grouping(title, note, tuple(_groups(labels, [*order, "no lesion"], scores)))
        for title, note, labels, order in properties
    )


def _size_of(facts: CaseFacts) -> str:
    if facts.lesion_fraction == 0:
        return "no lesion"
    return next(name for name, limit in _SIZES if facts.lesion_fraction < limit)


def _frame_of(facts: CaseFacts) -> str:
    if facts.lesion_fraction == 0:
        return "no lesion"
    return "touches the frame" if facts.touches_frame else "inside"


def _groups(labels: Sequence[str | None], order: Sequence[str], scores: Scores) -> list[Group]:
    groups = []
    for label in order:
        rows = tuple(row for row, own in enumerate(labels) if own == label)
        if rows:
            enough = len(rows) >= LEAST_IMAGES
            groups.append(Group(label, rows, describe_scores(scores.rows(torch.tensor(rows))) if enough else None))
    return groups
