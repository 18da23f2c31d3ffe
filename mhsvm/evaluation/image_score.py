"""Scores of one mask against its target, at any size, and of many masks together.

Shape letters: n images, h w an image's size in pixels, k classes, c scored classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mhsvm.metrics import (
    RANKING,
    Arguments,
    RankingCounts,
    Scores,
    check_arrays,
    chosen_metrics,
    class_counts,
    confusion_array,
    measure_arrays,
    metric_columns,
    ranking_metrics,
)


@dataclass(frozen=True)
class ImageScore:
    """The scores of one image.

    Attributes:
        confusion: int64 (k, k), see `mhsvm.metrics.confusion_matrices`.
        distances: float64 (c, m), see `mhsvm.metrics.measure_masks`; None if not measured.
        names: Names of the m columns.
        size: (h, w) of the masks.
        levels: int64 (c, 256, 2), see `mhsvm.metrics.RankingCounts`; None without probabilities.
    """

    confusion: Tensor
    distances: Tensor | None
    names: tuple[str, ...]
    size: tuple[int, int]
    levels: Tensor | None = None


@dataclass(frozen=True)
class SizedScores:
    """Scores of images that may differ in size.

    Attributes:
        scores: Counts and distances of the n images.
        confusion: int64 (k, k), summed over all images.
        sizes: (h, w) of each image.
        levels: int64 (n, c, 256, 2), see `mhsvm.metrics.RankingCounts`; None without probabilities.
    """

    scores: Scores
    confusion: Tensor
    sizes: tuple[tuple[int, int], ...]
    levels: Tensor | None = None


def score_image(
    pred: np.ndarray,
    target: np.ndarray,
    *,
    num_classes: int,
    boundary: bool,
    arguments: Arguments | None = None,
    probability: Tensor | None = None,
) -> ImageScore:
    """Count pixels, and with `boundary` measure the boundaries too.

    Args:
        pred: uint8 (h, w): 1 is lesion, or class indices.
        target: The same; for several classes 255 is not counted.
        num_classes: 1, or k.
        boundary: Measure boundaries, which takes longer.
        arguments: Arguments of metrics, see `mhsvm.metrics.metric_arguments`.
        probability: (1, h, w) of lesion or (k, h, w), in 0..1, for the metrics that take no threshold.
    Raises:
        ValueError: Shapes differ, or values are no classes.
    """
    check_arrays(pred, target, num_classes)
    metrics = chosen_metrics(boundary=boundary)
    measured = []
    if metrics:
        values = measure_arrays(pred, target, metrics=metrics, num_classes=num_classes, arguments=arguments)
        measured.append(torch.from_numpy(values))
    names, levels = metric_columns(metrics), None
    if probability is not None:
        ranking = RankingCounts()
        ranking.add(probability[None], torch.from_numpy(target)[None])
        levels, names = ranking.counts[0], (*names, *RANKING)
        measured.append(torch.stack([*ranking_metrics(levels).values()], dim=-1))
    return ImageScore(
        confusion=torch.from_numpy(confusion_array(pred, target, num_classes=num_classes)),
        distances=torch.cat(measured, dim=-1) if measured else None,
        names=names,
        size=target.shape,
        levels=levels,
    )


def join_scores(ids: Sequence[str], images: Sequence[ImageScore]) -> SizedScores:
    """Join the scores of at least one image; either all or none have distances."""
    confusion = torch.stack([image.confusion for image in images])
    distances = [image.distances for image in images if image.distances is not None]
    stacked = torch.stack(distances) if distances else None
    scores = Scores(tuple(ids), class_counts(confusion), stacked, images[0].names)
    levels = [image.levels for image in images if image.levels is not None]
    return SizedScores(
        scores, confusion.sum(dim=0), tuple(image.size for image in images), torch.stack(levels) if levels else None
    )
