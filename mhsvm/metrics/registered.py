"""Metrics of masks that counts cannot give, by name: a number per image and class, measured on the masks.

Shape letters: b images, h w map, k classes, c scored classes (1, or k - 1 without the background), m columns.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from mhsvm.metrics.counts import IGNORE_INDEX, PER_IMAGE, RANKING, check_masks
from mhsvm.registry import Registry

# (pred, target, *, arguments with numbers as defaults) -> number or numbers
Measure = Callable[..., float | Sequence[float]]
# Name of a metric -> its arguments.
Arguments = Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class MaskMetric:
    """A registered metric; see `register_metric` for the attributes."""

    measure: Measure
    columns: tuple[str, ...]
    unit: str
    of_boundary: bool = False
    arguments: Mapping[str, float] = field(default_factory=dict)


METRICS: Registry[MaskMetric] = Registry("metric")


def register_metric(
    name: str, *, columns: Sequence[str] = (), unit: str = "", of_boundary: bool = False
) -> Callable[[Measure], Measure]:
    """Register a function (pred, target) -> number, on two bool masks (h, w), as a metric.

    Tests and scores measure every registered metric: cases.csv has a column, summary.json, comparisons and reports
    have the mean over the images where it is defined, under COLUMN_per_image.

    Args:
        name: Name of the metric, and of its column.
        columns: Names of the numbers, if the function returns several.
        unit: Such as "pixels", for tables.
        of_boundary: Whether it is left out where the metrics of boundaries are.
    Returns:
        A decorator. Keyword-only arguments of the function, with numbers from 0 on as defaults, are settings of the
        metric, see `metric_arguments`. The function returns NaN where the metric is not defined, such as for an empty
        mask.
    Raises:
        ValueError: The name is taken, or a column is, or an argument has no number as its default.
    """

    def register(measure: Measure) -> Measure:
        own = tuple(columns) or (name,)
        taken = set(own) & {*metric_columns(), *PER_IMAGE, *RANKING}
        if name not in METRICS and taken:
            raise ValueError(f"the columns of metric {name!r} are taken: {', '.join(sorted(taken))}")
        METRICS.add(name, MaskMetric(measure, own, unit, of_boundary, _arguments(measure)), made_of=measure)
        return measure

    return register


def _arguments(measure: Measure) -> dict[str, float]:
    parameters = inspect.signature(measure).parameters.values()
    found = {each.name: each.default for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}
    for name, default in found.items():
        if not isinstance(default, int | float):
            raise ValueError(f"a keyword-only argument of a metric has a number as its default; {name} has none")
    return found


def list_metrics() -> tuple[str, ...]:
    """Names of the registered metrics."""
    return METRICS.names()


def chosen_metrics(*, boundary: bool = True) -> tuple[str, ...]:
    """Names of all metrics, with or without those of boundaries, which take longest."""
    return tuple(name for name, metric in METRICS.items() if boundary or not metric.of_boundary)


def metric_arguments(settings: Sequence[str] = ()) -> dict[str, dict[str, float]]:
    """Arguments of the metrics that have any: the defaults, and settings that differ.

    Args:
        settings: Such as "nsd.tolerance=3".
    Raises:
        ValueError: A setting has another form, names no metric or no argument of it, or has no number from 0 on.
    """
    chosen = {name: dict(metric.arguments) for name, metric in METRICS.items() if metric.arguments}
    for setting in settings:
        key, _, text = setting.partition("=")
        name, _, argument = key.strip().partition(".")
        METRICS[name]
        if argument not in chosen.get(name, {}):
            known = ", ".join(f"{own}.{each}" for own, arguments in chosen.items() for each in arguments)
            raise ValueError(
                f"a setting of a metric is one of {known}, with its value: nsd.tolerance=3, not {setting!r}"
            )
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"{key} is a number from 0 on, not {text!r}: write such as {key}=2")
        chosen[name][argument] = value
    return chosen


def argument_line(arguments: Arguments) -> str:
    """The arguments of metrics for a reader; empty if there are none."""
    return "; ".join(
        f"{name} with {', '.join(f'{each} {value:g}' for each, value in own.items())}"
        for name, own in arguments.items()
    )


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


def measure_masks(
    pred: Tensor, target: Tensor, *, metrics: Sequence[str], num_classes: int = 1, arguments: Arguments | None = None
) -> Tensor:
    """Measure registered metrics of masks.

    Args:
        pred: (b, h, w) or (b, 1, h, w): lesion or not (bool, or 0 and 1), or class indices 0..k-1.
        target: The ground truth in the same form; with several classes pixels of 255 are background in both.
        metrics: Names from `list_metrics()`.
        num_classes: 1 for lesion or not, else k.
        arguments: Arguments of metrics by their names, from `metric_arguments`; the defaults of others.
    Returns:
        float64 (b, c, m), on the CPU, in the order of `metric_columns(metrics)`; NaN where a metric is not defined.
    Raises:
        ValueError: Shapes differ, values are outside the classes or no whole numbers, or a metric is unknown.
    """
    check_masks(pred, target, num_classes)
    predicted, targets = (masks.reshape(len(masks), *masks.shape[-2:]).cpu().numpy() for masks in (pred, target))
    values = [
        measure_arrays(*pair, metrics=metrics, num_classes=num_classes, arguments=arguments)
        for pair in zip(predicted, targets, strict=True)
    ]
    shape = len(predicted), max(num_classes - 1, 1), len(metric_columns(metrics))
    return torch.from_numpy(np.stack(values) if values else np.zeros(shape))


def measure_arrays(
    pred: np.ndarray,
    target: np.ndarray,
    *,
    metrics: Sequence[str],
    num_classes: int = 1,
    arguments: Arguments | None = None,
) -> np.ndarray:
    """Compute `measure_masks` for valid masks of one image, (h, w) each: float64 (c, m)."""
    arguments = arguments or {}
    chosen = [(metric.measure, arguments.get(name, {})) for name, metric in METRICS.items() if name in metrics]
    labels = range(1, max(num_classes, 2))
    values = np.full((len(labels), len(metric_columns(metrics))), np.nan)
    counted = True if num_classes == 1 else target != IGNORE_INDEX
    for place, label in enumerate(labels):
        masks = (pred == label) & counted, target == label
        values[place] = np.concatenate([np.atleast_1d(measure(*masks, **own)) for measure, own in chosen])
    return values
