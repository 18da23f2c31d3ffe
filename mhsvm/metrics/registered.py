"""Metrics of masks that counts cannot give, by name: a number per image and class, measured on the masks.

Shape letters: b images, h w map, k classes, c scored classes (1, or k - 1 without the background), m columns.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mhsvm.metrics.counts import IGNORE_INDEX, check_masks
from mhsvm.registry import Registry

Measure = Callable[[np.ndarray, np.ndarray], float | Sequence[float]]


@dataclass(frozen=True)
class MaskMetric:
    """A registered metric; see `register_metric` for the attributes."""

    measure: Measure
    columns: tuple[str, ...]
    unit: str


METRICS: Registry[MaskMetric] = Registry("metric")


def register_metric(name: str, *, columns: Sequence[str] = (), unit: str = "") -> Callable[[Measure], Measure]:
    """Register a function (pred, target) -> number, on two bool masks (h, w), as a metric.

    Tests and scores measure every registered metric: cases.csv has a column, summary.json, comparisons and reports
    have the mean over the images where it is defined, under COLUMN_per_image.

    Args:
        name: Name of the metric, and of its column.
        columns: Names of the numbers, if the function returns several.
        unit: Such as "pixels", for tables.
    Returns:
        A decorator. The function returns NaN where the metric is not defined, such as for an empty mask.
    Raises:
        ValueError: The name is taken, or a column is.
    """

    def register(measure: Measure) -> Measure:
        own = tuple(columns) or (name,)
        taken = set(own) & set(metric_columns())
        if name not in METRICS and taken:
            raise ValueError(f"the columns of metric {name!r} are taken: {', '.join(sorted(taken))}")
        METRICS.add(name, MaskMetric(measure, own, unit), made_of=measure)
        return measure

    return register


def list_metrics() -> tuple[str, ...]:
    """Names of the registered metrics."""
    return METRICS.names()


def chosen_metrics(*, boundary: bool = True) -> tuple[str, ...]:
    """Names of all metrics, with or without the distances of boundaries, which take longest."""
    return tuple(name for name in METRICS if boundary or name != "boundary")


def metric_columns(metrics: Sequence[str] | None = None) -> tuple[str, ...]:
    """Columns of some metrics, by default of all.

    Raises:
        ValueError: A metric is unknown.
    """
    for name in metrics or ():
        METRICS[name]
    chosen = [metric for name, metric in METRICS.items() if metrics is None or name in metrics]
    return tuple(column for metric in chosen for column in metric.columns)


def column_label(column: str) -> str:
    """A column with its unit, for a reader."""
    units = {own: metric.unit for _, metric in METRICS.items() for own in metric.columns}
    return f"{column}, {units[column]}" if units.get(column) else column


def measure_masks(pred: Tensor, target: Tensor, *, metrics: Sequence[str], num_classes: int = 1) -> Tensor:
    """Measure registered metrics of masks.

    Args:
        pred: (b, h, w) or (b, 1, h, w): lesion or not (bool, or 0 and 1), or class indices 0..k-1.
        target: The ground truth in the same form; with several classes pixels of 255 are background in both.
        metrics: Names from `list_metrics()`.
        num_classes: 1 for lesion or not, else k.
    Returns:
        float64 (b, c, m), on the CPU, in the order of `metric_columns(metrics)`; NaN where a metric is not defined.
    Raises:
        ValueError: Shapes differ, values are outside the classes or no whole numbers, or a metric is unknown.
    """
    check_masks(pred, target, num_classes)
    predicted, targets = (masks.reshape(len(masks), *masks.shape[-2:]).cpu().numpy() for masks in (pred, target))
    labels = range(1, max(num_classes, 2))
    chosen = [metric for name, metric in METRICS.items() if name in metrics]
    values = np.full((len(predicted), len(labels), len(metric_columns(metrics))), np.nan)
    for row, (of_pred, of_target) in enumerate(zip(predicted, targets, strict=True)):
        counted = True if num_classes == 1 else of_target != IGNORE_INDEX
        for place, label in enumerate(labels):
            masks = (of_pred == label) & counted, of_target == label
            values[row, place] = np.concatenate([np.atleast_1d(metric.measure(*masks)) for metric in chosen])
    return torch.from_numpy(values)
