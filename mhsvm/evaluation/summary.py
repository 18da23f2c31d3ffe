"""Two records of a test: a line to search for with grep, and a summary that is equal byte for byte when made again."""

from pathlib import Path

from torch import Tensor

from mhsvm.metrics import summarize
from mhsvm.text_file import write_json

SCHEMA = 2


def result_line(loss: float, counts: Tensor, confusion: Tensor) -> str:
    """The line that users of the published projects search for with grep.

    Args:
        loss: Mean loss per image.
        counts: (n, c, 4), see `mhsvm.metrics.class_counts`; metrics are pooled and averaged over classes.
        confusion: (k, k) of all images; rows are targets, columns are predictions: [[tn, fp], [fn, tp]].
    """
    pooled = summarize(counts)
    return (
        f"test of best model, loss: {loss:.4f},miou: {pooled['miou']:.6f}, f1_or_dsc: {pooled['dsc']:.6f}, "
        f"accuracy: {pooled['accuracy']:.6f}, specificity: {pooled['specificity']:.6f}, "
        f"sensitivity: {pooled['sensitivity']:.6f}, confusion_matrix: {confusion.tolist()}"
    )


def write_summary(path: Path, content: dict) -> None:
    """Write a summary as JSON after its schema version; keys keep their order."""
    write_json(path, {"schema": SCHEMA, **content})
