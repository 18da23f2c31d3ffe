"""How far the figures of a test set could be off, had other images been drawn.

Shape letters: n images, r resamples.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mhsvm.metrics.summary import Scores, figures_of, summands

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
# Weights that are held at a time: a few megabytes stay in the processor's cache.
_WEIGHTS = 2**20

Interval = tuple[float, float]


def bootstrap_intervals(
    scores: Scores, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = SEED
) -> dict[str, Interval]:
    """Confidence intervals of all figures, pooled and per image, from the same resamples.

    Images are drawn with replacement, as many as there are, `resamples` times; the interval runs between the
    percentiles that leave half of 1 - confidence on each side. A resample without any value of a figure (distances that
    no image in it has) does not count for that figure.

    Args:
        scores: Of at least one image. Of a single one, every interval is a point.
        resamples: How often a test set is drawn.
        confidence: Share of resamples inside the interval.
        seed: Of the draws; equal seeds give equal intervals.
    Returns:
        (low, high) under each name of `Scores.figures`; NaN where the figure is.
    Raises:
        ValueError: There is no image, or an argument lies outside its range.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", percentile interval.
    """
    check_resampling(resamples, confidence)
    if not len(scores):
        raise ValueError("there are no images to draw from")
    rows = summands(scores.counts, scores.distances)
    drawn = [
        figures_of(weighted_sums(weights, rows), scores.names) for weights in draw_weights(len(scores), resamples, seed)
    ]
    return {name: percentile_interval(torch.cat([part[name] for part in drawn]), confidence) for name in drawn[0]}


def check_resampling(resamples: int, confidence: float) -> None:
    """Raise ValueError unless there is a resample, and a confidence between 0 and 1."""
    if resamples < 1:
        raise ValueError(f"at least 1 resample is needed, such as {RESAMPLES}; got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, such as {CONFIDENCE}; got {confidence}")


def draw_weights(num: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """How often each of `num` images comes in each resample: float64 (some, num), `resamples` rows in all."""
    generator = torch.Generator().manual_seed(seed)
    for size in chunk_sizes(num, resamples):
        drawn = torch.randint(num, (size, num), generator=generator)
        drawn += num * torch.arange(size).unsqueeze(1)
        yield torch.bincount(drawn.flatten(), minlength=size * num).view(size, num).double()


def chunk_sizes(num: int, resamples: int) -> Iterator[int]:
    """Resamples of `num` images at a time, so that their weights fit memory."""
    most = max(1, _WEIGHTS // num)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def weighted_sums(weights: Tensor, rows: Tensor) -> Tensor:
    """Sums of rows: weights (r, n), rows (n, …) -> (r, …)."""
    return (weights @ rows.flatten(1)).view(len(weights), *rows.shape[1:])


def percentile_interval(values: Tensor, confidence: float) -> Interval:
    """Percentiles of resampled figures (r,); NaN among them do not count."""
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=values.dtype)
    low, high = values.nanquantile(tails).tolist()
    return low, high
