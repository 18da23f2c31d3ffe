"""Confidence intervals of the metrics of a test set, by the bootstrap over images.

Shape letters: n images, r resamples.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from mhsvm.metrics.summary import Scores, metrics_of, summands

RESAMPLES = 10_000
CONFIDENCE = 0.95
SEED = 0
# Number of weights per chunk; a few megabytes stay in the cache of the processor.
_WEIGHTS = 2**20

Interval = tuple[float, float]


def bootstrap_intervals(
    scores: Scores, *, resamples: int = RESAMPLES, confidence: float = CONFIDENCE, seed: int = SEED
) -> dict[str, Interval]:
    """Confidence intervals of all metrics, pooled and per image, from the same resamples.

    A resample has n images, sampled with replacement. The interval is between the percentiles that leave half of
    1 - confidence on each side. A resample in which a metric has no value (a distance that none of its images has) does
    not count for that metric.

    Args:
        scores: Scores of at least one image. For a single image, every interval is a point.
        resamples: Number of resamples.
        confidence: Fraction of the resamples inside the interval.
        seed: Seed of the resamples; equal seeds give equal intervals.
    Returns:
        (low, high) for each name of `Scores.metrics`; NaN if the metric is NaN.
    Raises:
        ValueError: There is no image, or an argument is out of range.
    Source: Efron & Tibshirani 1993, "An Introduction to the Bootstrap", percentile interval.
    """
    check_resampling(resamples, confidence)
    if not len(scores):
        raise ValueError("there are no images to sample from")
    rows = summands(scores.counts, scores.distances)
    chunks = [
        metrics_of(weighted_sums(weights, rows), scores.names, classes=scores.occurring)
        for weights in resample_weights(len(scores), resamples, seed)
    ]
    return {name: percentile_interval(torch.cat([chunk[name] for chunk in chunks]), confidence) for name in chunks[0]}


def check_resampling(resamples: int, confidence: float) -> None:
    """Raise ValueError unless there is a resample, and a confidence between 0 and 1."""
    if resamples < 1:
        raise ValueError(f"at least 1 resample is needed, such as {RESAMPLES}; got {resamples}")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence is between 0 and 1, such as {CONFIDENCE}; got {confidence}")


def resample_weights(num: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield the number of times that each image is in each resample, in chunks float64 (some, num)."""
    generator = torch.Generator().manual_seed(seed)
    for size in chunk_sizes(num, resamples):
        sampled = torch.randint(num, (size, num), generator=generator)
        sampled += num * torch.arange(size).unsqueeze(1)
        yield torch.bincount(sampled.flatten(), minlength=size * num).view(size, num).double()


def chunk_sizes(num: int, resamples: int) -> Iterator[int]:
    """Yield numbers of resamples whose weights fit the cache together."""
    most = max(1, _WEIGHTS // num)
    for start in range(0, resamples, most):
        yield min(most, resamples - start)


def weighted_sums(weights: Tensor, rows: Tensor) -> Tensor:
    """Weighted sums of rows: weights (r, n), rows (n, …) -> (r, …)."""
    return (weights @ rows.flatten(1)).view(len(weights), *rows.shape[1:])


def percentile_interval(values: Tensor, confidence: float) -> Interval:
    """Percentile interval of a resampled metric (r,), without NaN values."""
    tails = torch.tensor([(1 - confidence) / 2, (1 + confidence) / 2], dtype=values.dtype)
    low, high = values.nanquantile(tails).tolist()
    return low, high
