"""What a summary says of probabilities: how well they are calibrated, and what other thresholds would give."""

import math

from mhsvm.metrics import CalibrationCounts, calibration, threshold_sweep


def describe_calibration(counts: CalibrationCounts, *, num_classes: int) -> dict:
    """The reliability curve with its expected calibration error, and with one class the threshold sweep.

    Args:
        counts: Of all images.
        num_classes: 1, or k: then the likeliest class is taken, and there is no threshold.
    Returns:
        `calibration`, with a mean probability and a frequency of None in empty bins; `thresholds`, the figures of
        `mhsvm.metrics.summarize` at each.
    """
    curve = calibration(counts)
    columns = (curve.borders[:-1], curve.borders[1:], curve.num_pixels, curve.probability, curve.frequency)
    names = ("low", "high", "num_pixels", "probability", "frequency")
    rows = zip(*(column.tolist() for column in columns), strict=True)
    bins = [dict(zip(names, (None if math.isnan(cell) else cell for cell in row), strict=True)) for row in rows]
    content: dict = {"calibration": {"ece": curve.ece, "bins": bins}}
    if num_classes == 1:
        sweep = threshold_sweep(counts)
        content["thresholds"] = [{"threshold": threshold, **figures} for threshold, figures in sweep.items()]
    return content
