"""Compare two models on the same images: differences of metrics and their significance.

Shape letters: n images, c scored classes, r resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mhsvm.metrics.counts import target_pixels
from mhsvm.metrics.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    check_resampling,
    chunk_sizes,
    percentile_interval,
    resample_weights,
    weighted_sums,
)
from mhsvm.metrics.summary import POOLED, Scores, metrics_of, summands

# Differences within rounding are equal.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Difference:
    """Difference of a metric between two models.

    Attributes:
        value: The difference; NaN if a metric is NaN.
        interval: Bootstrap confidence interval of the difference.
        p_value: p value of the paired permutation test, two-sided.
        effect_size: Cohen's d_z, the mean difference over images divided by its standard deviation. None for pooled
            metrics, which have no values per image, and if the deviation is 0.
    """

    value: float
    interval: Interval
    p_value: float
    effect_size: float | None


def paired_differences(
    scores: Scores,
    others: Scores,
    *,
    resamples: int = RESAMPLES,
    confidence: float = CONFIDENCE,
    seed: int = SEED,
) -> dict[str, Difference]:
    """Compare two models image by image.

    The permutation test swaps the two results of each image at random and counts the differences that are at least as
    large as the observed one. It tests pooled metrics and means in the same way. If there are at most `resamples`
    possible swaps, all are tried and the p value is exact; otherwise it is (1 + count) / (1 + resamples). Boundary
    distances are compared on the images where both models have them.

    Args:
        scores, others: Scores of the same images in the same order, against the same targets.
        resamples: Number of bootstrap resamples, and of random swaps.
        confidence, seed: See `bootstrap_intervals`.
    Returns:
        The difference, `scores` minus `others`, for each metric that both have.
    Raises:
        ValueError: The images or targets differ, there is no image, or an argument is out of range.
    Source: Good 2005, "Permutation, Parametric and Bootstrap Tests of Hypotheses", paired comparisons.
    """
    check_resampling(resamples, confidence)
    _check_paired(scores, others)
    names = tuple(name for name in scores.names if name in others.names)
    distances = _common_distances(scores, others, names)
    first, second = summands(scores.counts, distances[0]), summands(others.counts, distances[1])
    # both have the same targets, and so the same classes
    subtract = partial(_subtract, names=names, classes=scores.occurring)
    observed = subtract(first.sum(dim=0), second.sum(dim=0))
    resampled = [
        subtract(weighted_sums(weights, first), weighted_sums(weights, second))
        for weights in resample_weights(len(scores), resamples, seed)
    ]
    swapped = [
        subtract(first.sum(dim=0) - moved, second.sum(dim=0) + moved)
        for moved in (weighted_sums(swaps, first - second) for swaps in _swaps(len(scores), resamples, seed))
    ]
    # the averaged metrics of a single image are its own values
    of_images = subtract(first, second)
    return {
        name: Difference(
            value=value.item(),
            interval=percentile_interval(torch.cat([part[name] for part in resampled]), confidence),
            p_value=_p_value(value, torch.cat([part[name] for part in swapped]), exact=2 ** len(scores) <= resamples),
            effect_size=None if name in POOLED else _effect_size(of_images[name]),
        )
        for name, value in observed.items()
    }


def adjust_p_values(p_values: list[float]) -> list[float]:
    """Adjust the p values of several tests by Holm's method, so that each can be compared with the common level.

    Source: Holm 1979, "A Simple Sequentially Rejective Multiple Test Procedure".
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def _check_paired(scores: Scores, others: Scores) -> None:
    if scores.ids != others.ids or not len(scores):
        raise ValueError(
            f"two models are compared on the same images in the same order; got {len(scores)} and {len(others)}: "
            "select the rows of the common ids"
        )
    if not torch.equal(target_pixels(scores.counts), target_pixels(others.counts)):
        raise ValueError(
            "two models are compared against the same targets; theirs differ in classes or pixels: score one set"
        )


def _common_distances(scores: Scores, others: Scores, names: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
    """The common columns of both, NaN where one of them is."""
    if scores.distances is None or others.distances is None or not names:
        return None, None
    first = scores.distances[..., [scores.names.index(name) for name in names]]
    second = others.distances[..., [others.names.index(name) for name in names]]
    common = ~(first + second).isnan()
    return first.where(common, torch.nan), second.where(common, torch.nan)


def _subtract(sums: Tensor, others: Tensor, *, names: Sequence[str], classes: Tensor) -> dict[str, Tensor]:
    metrics, other_metrics = (metrics_of(each, names, classes=classes) for each in (sums, others))
    return {name: metrics[name] - other_metrics[name] for name in metrics}


def _swaps(num: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Yield swaps of images as 0 or 1, in chunks float64 (some, num): random ones, or all if they are few."""
    if 2**num <= resamples:
        yield (torch.arange(2**num).unsqueeze(1) >> torch.arange(num)).bitwise_and(1).double()
        return
    generator = torch.Generator().manual_seed(seed)
    for size in chunk_sizes(num, resamples):
        yield torch.randint(2, (size, num), generator=generator).double()


def _p_value(observed: Tensor, swapped: Tensor, *, exact: bool) -> float:
    if observed.isnan():
        return float("nan")
    as_large = (swapped.abs() >= observed.abs() - _TOLERANCE).sum().item()
    return as_large / len(swapped) if exact else (1 + as_large) / (1 + len(swapped))


def _effect_size(differences: Tensor) -> float | None:
    """Cohen's d_z of differences per image (n,), without NaN values."""
    differences = differences[~differences.isnan()]
    if len(differences) < 2 or differences.std() <= _TOLERANCE:
        return None
    return (differences.mean() / differences.std()).item()
