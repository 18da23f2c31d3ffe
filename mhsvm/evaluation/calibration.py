"""The calibration of probabilities and the metrics at other thresholds, for a summary."""

import math

from mhsvm.metrics import CalibrationCounts, calibration, threshold_sweep


def describe_calibration(counts: CalibrationCounts, *, num_classes: int) -> dict:
    """Describe the reliability curve with its expected calibration error, and for one class the threshold sweep.

    Args:
        counts: Counts of all images.
        num_classes: 1, or k: then the argmax is the predicted class, and there is no threshold.
    Returns:
        `calibration`, with None for the mean probability and frequency of empty bins; `thresholds`, the metrics of
        `mhsvm.metrics.summarize` at each threshold.
    """
    curve = calibration(counts)
    columns = (curve.borders[:-1], curve.borders[1:], curve.num_pixels, curve.probability, curve.frequency)
    names = ("low", "high", "num_pixels", "probability", "frequency")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    bins = [dict(zip(names, (None if math.isnan(cell) else cell for cell in row), strict=True)) for row in rows]
    content: dict = {"calibration": {"ece": curve.ece, "bins": bins}}
    if num_classes == 1:
        sweep = threshold_sweep(counts)
        content["thresholds"] = [{"threshold": threshold, **metrics} for threshold, metrics in sweep.items()]
    return content
