"""Where a model fails: figures of groups of images that share a property."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from mhsvm.evaluation.scores import describe_scores
from mhsvm.metrics import Scores
from mhsvm.report.skin_tone import tone_labels, tone_of, typology_angle

# Below this, a mean says more of its images than of the model.
LEAST_IMAGES = 10
# Name of each class of lesion sizes, and the share of the image that it lies below.
_SIZES = (("below 5 %", 0.05), ("5 to 15 %", 0.15), ("15 to 40 %", 0.4), ("40 % and more", 2.0))


@dataclass(frozen=True)
class CaseFacts:
    """What the truth and the picture of an image tell.

    Attributes:
        lesion_share: Share of the image that is lesion.
        touches_frame: Whether the lesion does.
        tone_angle: Of the skin, in degrees, see `mhsvm.report.skin_tone`; None where it is not known.
    """

    lesion_share: float
    touches_frame: bool
    tone_angle: float | None


@dataclass(frozen=True)
class Group:
    """Images that share a property.

    Attributes:
        label: The property.
        rows: Of the images.
        described: What `describe_scores` says of them; None of too few.
    """

    label: str
    rows: tuple[int, ...]
    described: dict | None


@dataclass(frozen=True)
class Grouping:
    """All images of a test by one property.

    Attributes:
        title: What they are grouped by.
        note: What a reader has to know; "" where there is nothing.
        groups: None of them empty; an image is in one at most.
    """

    title: str
    note: str
    groups: tuple[Group, ...]


def look_at(image: np.ndarray, truth: np.ndarray) -> CaseFacts:
    """Facts of an image, uint8 (h, w, 3), with its truth, uint8 (h, w), 0 is background, 255 is not counted."""
    lesion = (truth > 0) & (truth < 255)
    frame = np.concatenate([lesion[0], lesion[-1], lesion[:, 0], lesion[:, -1]])
    return CaseFacts(float(lesion.mean()), bool(frame.any()), typology_angle(image, truth > 0))


def group_cases(facts: Sequence[CaseFacts], scores: Scores) -> tuple[Grouping, ...]:
    """Group images by the lesion's size, by whether it touches the frame, and by skin tone.

    Args:
        facts: Of each image.
        scores: Of the same images, in the same order.
    """
    tones = [None if each.tone_angle is None else tone_of(each.tone_angle) for each in facts]
    unknown = tones.count(None)
    left_out = f" {unknown} images show too little skin, or bluish skin." if unknown else ""
    by_property = (
        ("lesion size", "as its share of the image", [_size_of(each) for each in facts], [name for name, _ in _SIZES]),
        ("lesion and frame", "", [_frame_of(each) for each in facts], ["inside", "touches the frame"]),
        (
            "skin tone",
            f"from uncalibrated photographs: ITA of the skin beside lesion and vignette.{left_out}",
            tones,
            tone_labels(),
        ),
    )
    return tuple(
        Grouping(title, note, tuple(_groups(labels, [*order, "no lesion"], scores)))
        for title, note, labels, order in by_property
    )


def _size_of(facts: CaseFacts) -> str:
    if facts.lesion_share == 0:
        return "no lesion"
    return next(name for name, limit in _SIZES if facts.lesion_share < limit)


def _frame_of(facts: CaseFacts) -> str:
    if facts.lesion_share == 0:
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
