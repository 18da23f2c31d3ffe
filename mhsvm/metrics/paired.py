"""Two models on the same images: how their figures differ, and whether chance would do as much.

Shape letters: n images, c scored classes, r resamples.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from mhsvm.metrics.counts import truth_pixels
from mhsvm.metrics.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    check_resampling,
    chunk_sizes,
    draw_weights,
    percentile_interval,
    weighted_sums,
)
from mhsvm.metrics.summary import POOLED, Scores, figures_of, summands

# Differences that only rounding tells apart are equal.
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class Difference:
    """A figure of one model minus that of another.

    Attributes:
        value: The difference; NaN where a figure is.
        interval: Its bootstrap confidence interval.
        p_value: Of the paired permutation test, two-sided.
        effect_size: Cohen's d_z, the mean of the images' differences over their standard deviation; None for pooled
            figures, which no image has, and where the deviation is 0.
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

    The permutation test asks how often a difference as large comes about if each image's two results are swapped by
    the toss of a coin: pooled figures and means are tested alike. With so few images that all swaps are no more than
    `resamples`, all are tried and the p value is exact; otherwise it is (1 + those as large) / (1 + resamples).
    Boundary distances are compared on the images where both models have them.

    Args:
        scores, others: Of the same images in the same order, against the same truth.
        resamples: Bootstrap resamples, and tosses of the permutation test.
        confidence, seed: See `bootstrap_intervals`.
    Returns:
        A difference, `scores` minus `others`, under each name that both have figures of.
    Raises:
        ValueError: The images or their pixels differ, there is none, or an argument lies outside its range.
    Source: Good 2005, "Permutation, Parametric and Bootstrap Tests of Hypotheses", paired comparisons.
    """
    check_resampling(resamples, confidence)
    _check_paired(scores, others)
    names = tuple(name for name in scores.names if name in others.names)
    distances = _common_distances(scores, others, names)
    first, second = summands(scores.counts, distances[0]), summands(others.counts, distances[1])
    subtract = partial(_subtract, names=names)
    observed = subtract(first.sum(dim=0), second.sum(dim=0))
    drawn = [
        subtract(weighted_sums(weights, first), weighted_sums(weights, second))
        for weights in draw_weights(len(scores), resamples, seed)
    ]
    swapped = [
        subtract(first.sum(dim=0) - moved, second.sum(dim=0) + moved)
        for moved in (weighted_sums(swaps, first - second) for swaps in _draw_swaps(len(scores), resamples, seed))
    ]
    # of a single image, the figures that are averaged are its own
    of_images = subtract(first, second)
    return {
        name: Difference(
            value=value.item(),
            interval=percentile_interval(torch.cat([part[name] for part in drawn]), confidence),
            p_value=_p_value(value, torch.cat([part[name] for part in swapped]), exact=2 ** len(scores) <= resamples),
            effect_size=None if name in POOLED else _effect_size(of_images[name]),
        )
        for name, value in observed.items()
    }


def adjust_p_values(p_values: list[float]) -> list[float]:
    """Holm's adjustment of several tests' p values, in their order: each may be held against the level of all.

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
            "take the rows of the ids that both have"
        )
    if not torch.equal(truth_pixels(scores.counts), truth_pixels(others.counts)):
        raise ValueError("two models are compared against the same truth; theirs differs in its classes or pixels")


def _common_distances(scores: Scores, others: Scores, names: Sequence[str]) -> tuple[Tensor | None, Tensor | None]:
    """The columns that both have, NaN where one of them is."""
    if scores.distances is None or others.distances is None or not names:
        return None, None
    first, second = (each.distances[..., [each.names.index(name) for name in names]] for each in (scores, others))
    common = ~(first + second).isnan()
    return first.where(common, torch.nan), second.where(common, torch.nan)


def _subtract(sums: Tensor, others: Tensor, *, names: Sequence[str]) -> dict[str, Tensor]:
    figures, other_figures = figures_of(sums, names), figures_of(others, names)
    return {name: figures[name] - other_figures[name] for name in figures}


def _draw_swaps(num: int, resamples: int, seed: int) -> Iterator[Tensor]:
    """Which images are swapped, 0 or 1: float64 (some, num); all ways where they are few."""
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
    """Cohen's d_z of the images' differences (n,), without those that are not defined."""
    differences = differences[~differences.isnan()]
    if len(differences) < 2 or differences.std() <= _TOLERANCE:
        return None
    return (differences.mean() / differences.std()).item()
