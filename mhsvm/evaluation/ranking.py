"""Area under the ROC curve, and average precision, for a summary and for a reader."""

import math
from collections.abc import Mapping

from torch import Tensor

from mhsvm.evaluation.scores import format_interval, format_metric
from mhsvm.metrics import RANKING, ranking_intervals, ranking_metrics


def describe_ranking(counts: Tensor, occurring: Tensor) -> dict:
    """Describe the metrics of the pixels of all images together.

    Args:
        counts: (n, c, 256, 2), see `mhsvm.metrics.RankingCounts`.
        occurring: bool (c,), the classes of the mean.
    Returns:
        The metrics with `limits`, their intervals; for several classes also `classes`, the metrics of each. None where
        one is not defined.
    """
    of_classes = ranking_metrics(counts.sum(dim=0))
    limits = ranking_intervals(counts, classes=occurring)
    content: dict = {name: _or_none(of_classes[name][occurring].nanmean().item()) for name in RANKING}
    content["levels"] = counts.shape[-2]
    content["limits"] = {name: [_or_none(limit) for limit in limits[name]] for name in RANKING}
    if counts.shape[1] > 1:
        content["classes"] = {
            str(place + 1): {name: _or_none(of_classes[name][place].item()) for name in RANKING}
            for place in range(counts.shape[1])
        }
    return content


def ranking_line(described: Mapping) -> str:
    """The metrics of all pixels together, for a reader; see `describe_ranking`."""
    shown = []
    for name in RANKING:
        interval = format_interval(described["limits"][name])
        shown.append(f"{name} {format_metric(described[name])}{f' ({interval})' if interval else ''}")
    return f"over the pixels of all images: {', '.join(shown)}"


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
