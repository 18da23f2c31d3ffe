"""The numbers of a test: a line to grep, a row a case, and a summary that is equal byte for byte when made again."""

import csv
import json
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from mhsvm.metrics import PER_IMAGE, per_image, summarize

SCHEMA = 1

_COUNTS = ("tp", "fp", "fn", "tn")


def result_line(loss: float, counts: Tensor, confusion: Tensor) -> str:
    """The line that users of these projects grep for.

    Args:
        loss: Mean loss an image.
        counts: (n, c, 4), see `mhsvm.metrics.class_counts`; the figures are pooled, of several classes their mean.
        confusion: (k, k) of the whole part; rows are the truth, columns the prediction: [[tn, fp], [fn, tp]].
    """
    pooled = summarize(counts)
    return (
        f"test of best model, loss: {loss:.4f},miou: {pooled['miou']:.6f}, f1_or_dsc: {pooled['dsc']:.6f}, "
        f"accuracy: {pooled['accuracy']:.6f}, specificity: {pooled['specificity']:.6f}, "
        f"sensitivity: {pooled['sensitivity']:.6f}, confusion_matrix: {confusion.tolist()}"
    )


def metrics_lines(metrics: dict[str, float]) -> list[str]:
    """Pooled and per-image figures side by side, a line each."""
    names = [name.removesuffix("_per_image") for name in metrics if name.endswith("_per_image")]
    rows = [f"{name:12} {metrics[name]:8.4f} {metrics[f'{name}_per_image']:10.4f}" for name in names]
    thresholded = f"{'jaccard_thresholded':21} {metrics['jaccard_thresholded']:10.4f}"
    return [f"{'':12} {'pooled':>8} {'per image':>10}", *rows, thresholded]


def class_metrics(counts: Tensor) -> dict[str, dict[str, float]]:
    """What `summarize` makes of each class alone: counts (n, c, 4) -> figures under "1", "2", …"""
    return {str(row + 1): summarize(counts[:, row]) for row in range(counts.shape[1])}


def write_cases(path: Path, ids: Sequence[str], counts: Tensor, *, num_classes: int) -> None:
    """Write a row for each image, for several classes one for each image and class.

    Args:
        path: The CSV file to make.
        ids: Names of the n images.
        counts: (n, c, 4), see `mhsvm.metrics.class_counts`.
        num_classes: 1, or k for a column `class`.
    """
    figures = per_image(counts)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *(["class"] if num_classes > 1 else []), *_COUNTS, *PER_IMAGE])
        for row, image_id in enumerate(ids):
            for place in range(counts.shape[1]):
                label = [place + 1] if num_classes > 1 else []
                values = [figures[name][row, place].item() for name in PER_IMAGE]
                writer.writerow([image_id, *label, *counts[row, place].tolist(), *values])


def write_summary(path: Path, content: dict) -> None:
    """Write a summary as JSON under its schema version; keys keep their order."""
    text = json.dumps({"schema": SCHEMA, **content}, indent=2, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")
