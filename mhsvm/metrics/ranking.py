"""Area under the ROC curve, and average precision, over pixels.

Probabilities are taken in 255ths, as `predictions.h5` holds them, so that counts by level stay in memory and no pixels.
On these levels the results are those of scikit-learn's `roc_auc_score` and `average_precision_score` for all pixels.

Shape letters: n images, b batch, h w size, k classes, c scored classes (1, or k - 1 without the background).
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from mhsvm.metrics.counts import IGNORE_INDEX, RANKING
from mhsvm.metrics.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    percentile_interval,
    resample_weights,
    weighted_sums,
)

LEVELS = 256
# Resamples at a time.
_PART = 256


class RankingCounts:
    """Pixels of each image by probability in 255ths and by whether they belong to a class, without ignored ones."""

    def __init__(self) -> None:
        self._counts: list[Tensor] = []

    def add(self, probability: Tensor, target: Tensor) -> None:
        """Count a batch on its own device.

        Args:
            probability: Floating point in 0..1, (b, 1, h, w) of the lesion or (b, k, h, w) of each class.
            target: uint8 (b, h, w): binary masks, or class indices with 255 = ignore.
        """
        several = probability.shape[1] > 1
        scored = probability[:, 1:] if several else probability
        levels = (scored * 255).round().long()
        labels = torch.arange(1, scored.shape[1] + 1, device=target.device).view(-1, 1, 1)
        belongs = (target.unsqueeze(1) == labels) if several else (target > 0).unsqueeze(1)
        num_maps = scored.shape[0] * scored.shape[1]
        maps = torch.arange(num_maps, device=target.device).view(*scored.shape[:2], 1, 1)
        cells = (maps * LEVELS + levels) * 2 + belongs
        counted = cells[(target != IGNORE_INDEX).unsqueeze(1).expand_as(cells)] if several else cells.flatten()
        counts = torch.bincount(counted, minlength=num_maps * LEVELS * 2)
        self._counts.append(counts.view(*scored.shape[:2], LEVELS, 2).cpu())

    @property
    def counts(self) -> Tensor:
        """int64 (n, c, 256, 2): pixels outside and inside each class by level."""
        return torch.cat(self._counts) if self._counts else torch.zeros(0, 1, LEVELS, 2, dtype=torch.int64)


def ranking_metrics(counts: Tensor) -> dict[str, Tensor]:
    """Area under the ROC curve, and average precision.

    Args:
        counts: Pixels outside and inside a class by level, (…, 256, 2).
    Returns:
        float64 (…) by the names `RANKING`. The area is NaN without pixels of both kinds, and the average precision
        without pixels of the class.
    """
    negative, positive = counts.double().unbind(-1)
    num_negative, num_positive = negative.sum(dim=-1), positive.sum(dim=-1)
    # pixels of this level and all higher ones
    fp, tp = (values.flip(-1).cumsum(dim=-1).flip(-1) for values in (negative, positive))
    # pairs of a negative and a positive pixel in the right order; equal ones count half
    ordered = (negative * (tp - positive / 2)).sum(dim=-1)
    precision = torch.where(positive > 0, tp / (tp + fp).clamp_min(1), 0.0)
    return {
        "auc": ordered / (num_negative * num_positive),
        "average_precision": (precision * positive).sum(dim=-1) / num_positive,
    }


def ranking_intervals(counts: Tensor, *, classes: Tensor, resamples: int = RESAMPLES) -> Mapping[str, Interval]:
    """Bootstrap intervals over images of the metrics of all pixels together, see `bootstrap_intervals`.

    Args:
        counts: (n, c, 256, 2).
        classes: bool (c,), classes of the mean.
        resamples: Number of resamples.
    """
    rows = counts[:, classes].double()
    chunks = []
    for weights in resample_weights(len(counts), resamples, SEED):
        # in parts, because the sums of each resample are many
        chunks += [ranking_metrics(weighted_sums(part, rows)) for part in weights.split(_PART)]
    return {
        name: percentile_interval(torch.cat([chunk[name] for chunk in chunks]).nanmean(dim=-1), CONFIDENCE)
        for name in RANKING
    }
