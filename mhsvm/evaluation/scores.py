"""Scores of masks: metrics with intervals for a summary and for a reader, and a row per case."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from mhsvm.metrics import (
    BOUNDARY,
    PER_IMAGE,
    Arguments,
    Scores,
    argument_line,
    bootstrap_intervals,
    column_label,
    metric_columns,
    per_image,
    target_pixels,
)
from mhsvm.metrics.intervals import CONFIDENCE, RESAMPLES, SEED
from mhsvm.metrics.summary import POOLED
from mhsvm.table import format_table
from mhsvm.text_file import split_lines, write_table

COUNTS = ("tp", "fp", "fn", "tn")
# Columns of name, pooled metric, interval, metric per image.
_WIDTHS = (19, 7, 15, 9)


def describe_scores(scores: Scores, arguments: Arguments | None = None) -> dict:
    """Describe scores for a summary: `metrics`, their `intervals` and, where it was measured, the `boundary`.

    The `arguments` of metrics that were measured are there too, if they are given.

    With several classes, `metrics` are means over the classes that occur in the ground truth, which `mean_over` lists,
    and `classes` holds the same of each alone, under "1", "2", … A class that does not occur is `absent`: its
    `predicted` pixels and images are counted, and only accuracy and specificity are defined. Metrics that are not
    defined are None.
    """
    content = _describe(scores)
    measured = {
        name: dict(own) for name, own in (arguments or {}).items() if set(metric_columns([name])) <= set(scores.names)
    }
    if measured:
        content["arguments"] = measured
    if scores.counts.shape[1] > 1:
        occurs = dict(enumerate(scores.occurring.tolist(), start=1))
        content["mean_over"] = [label for label, own in occurs.items() if own]
        content["classes"] = {
            str(label): (_describe if own else _describe_absent)(scores.of_class(label))
            for label, own in occurs.items()
        }
    return content


def absence_lines(scores: Scores) -> list[str]:
    """A line for each class that no image has, so that its metrics say nothing, with its predicted pixels."""
    lines = []
    for label in range(1, scores.counts.shape[1] + 1):
        own = scores.of_class(label)
        if target_pixels(own.counts)[..., 0].any():
            continue
        predicted = format_predicted(_predicted(own))
        if scores.counts.shape[1] == 1:
            lines.append(f"no ground truth of the {len(scores)} images shows a lesion; {predicted}")
        else:
            lines.append(
                f"class {label} is absent from the ground truth of all {len(scores)} images, and left out of the mean "
                f"over classes; {predicted}"
            )
    return lines


def format_predicted(predicted: Mapping) -> str:
    """The pixels that were predicted of an absent class, for a reader; see `describe_scores`."""
    return f"predicted in {predicted['pixels']:,} pixels of {predicted['images']} images"


def _predicted(scores: Scores) -> dict:
    false_positives = scores.counts[..., 1]
    return {"pixels": int(false_positives.sum()), "images": int((false_positives > 0).sum())}


def _describe_absent(scores: Scores) -> dict:
    content = _describe(scores)
    for values, undefined in ((content["metrics"], None), (content["intervals"]["limits"], [None, None])):
        # with nothing to find, the others would be 1 without a prediction and 0 with one
        values |= {name: undefined for name in values if not name.startswith(("accuracy", "specificity"))}
    return {"absent": True, "predicted": _predicted(scores), **content}


def _describe(scores: Scores) -> dict:
    intervals = bootstrap_intervals(scores)
    content = {
        "metrics": {name: _or_none(value) for name, value in scores.metrics().items()},
        "intervals": {
            "method": "percentile bootstrap over images",
            "confidence": CONFIDENCE,
            "resamples": RESAMPLES,
            "seed": SEED,
            "limits": {name: [_or_none(limit) for limit in limits] for name, limits in intervals.items()},
        },
    }
    if scores.distances is not None and set(BOUNDARY) <= set(scores.names):
        content["boundary"] = {"unit": "pixels", "images_without_outline": scores.num_unbounded}
    return content


def metrics_lines(described: Mapping) -> list[str]:
    """Pooled and per-image metrics, a line each, with their intervals; see `describe_scores`."""
    metrics, limits = described["metrics"], described["intervals"]["limits"]

    def cells(name: str) -> tuple[str, str]:
        return format_metric(metrics[name]), format_interval(limits[name])

    interval = f"{described['intervals']['confidence']:.0%} interval"
    header = ("", "pooled", interval, "per image", interval)
    rows = [(name, *cells(name), *cells(f"{name}_per_image")) for name in POOLED]
    rows += [(label, "", "", *cells(name)) for name, label in averaged_metrics(metrics).items()]
    # tables of other sets and sizes have columns at the same places
    table = format_table(header, rows, right=("pooled", "per image"), min_widths=_WIDTHS)
    lines = split_lines(table)
    skipped = described.get("boundary", {}).get("images_without_outline", 0)
    if skipped:
        lines.append(f"images without hd95 and assd, because prediction or target is empty: {skipped}")
    if "arguments" in described:
        lines.append(argument_line(described["arguments"]))
    classes = described.get("classes", {})
    if any(alone.get("absent") for alone in classes.values()):
        kept = ", ".join(map(str, described["mean_over"]))
        lines.append(f"mean over the classes that occur: {kept}" if kept else "no class occurs: there is no mean")
    for label, alone in classes.items():
        if alone.get("absent"):
            lines.append(f"class {label}: absent, {format_predicted(alone['predicted'])}")
            continue
        shown = ", ".join(
            f"{name} {format_metric(alone['metrics'][name])}" for name in ("miou", "dsc", "dsc_per_image")
        )
        lines.append(f"class {label}: {shown}")
    return lines


def averaged_metrics(metrics: Mapping) -> dict[str, str]:
    """Name -> label of the metrics that only single images have, such as the distances of boundaries."""
    of_counts = {"loss", *POOLED, *(f"{name}_per_image" for name in POOLED)}
    return {name: column_label(name.removesuffix("_per_image")) for name in metrics if name not in of_counts}


def format_metric(value: float | None) -> str:
    """Format with four decimals below 10, else two; "-" for None."""
    return "-" if value is None else f"{value:.4f}" if abs(value) < 10 else f"{value:.2f}"


def format_interval(limits: Sequence[float | None]) -> str:
    """Two numbers, or nothing where they are None."""
    low, high = limits
    return "" if low is None else f"{format_metric(low)}-{format_metric(high)}"


def _or_none(value: float) -> float | None:
    # JSON has no NaN
    return None if math.isnan(value) else value


def write_cases(
    path: Path, scores: Scores, *, num_classes: int, sizes: Sequence[tuple[int, int]] | None = None
) -> None:
    """Write a row for each image, for several classes one for each image and class.

    Args:
        path: The CSV file to make.
        scores: With distances, each of them is a column, which is empty where it is not defined.
        num_classes: 1, or k for a column `class`.
        sizes: Height and width of each image in pixels, for columns of these names.
    """
    header, rows = case_rows(scores, num_classes=num_classes, sizes=sizes)
    write_table(path, header, rows)


def case_rows(
    scores: Scores, *, num_classes: int, sizes: Sequence[tuple[int, int]] | None = None
) -> tuple[list[str], list[list]]:
    """Names of the columns, and the rows, of `write_cases`."""
    columns = per_image(scores.counts)
    measured: tuple[str, ...] = PER_IMAGE
    if scores.distances is not None:
        columns |= dict(zip(scores.names, scores.distances.unbind(-1), strict=True))
        measured = (*PER_IMAGE, *scores.names)
    labels, size_names = ["class"] if num_classes > 1 else [], ["height", "width"] if sizes else []
    rows: list[list] = []
    for row, image_id in enumerate(scores.ids):
        size = sizes[row] if sizes else []
        for place in range(scores.counts.shape[1]):
            label = [place + 1] if num_classes > 1 else []
            values = [_or_none(columns[name][row, place].item()) for name in measured]
            rows.append([image_id, *label, *size, *scores.counts[row, place].tolist(), *values])
    return ["id", *labels, *size_names, *COUNTS, *measured], rows
