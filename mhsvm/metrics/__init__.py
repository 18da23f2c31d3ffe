"""Metrics: counts per image, summaries of a test set, confidence intervals, and comparisons of two models."""

from mhsvm.metrics.boundary import BOUNDARY, boundary_distances
from mhsvm.metrics.calibration import Calibration, CalibrationCounts, calibration, threshold_sweep
from mhsvm.metrics.counts import (
    PER_IMAGE,
    RANKING,
    check_arrays,
    class_counts,
    confusion_array,
    confusion_counts,
    confusion_matrices,
    count_pairs,
    per_image,
    target_pixels,
)
from mhsvm.metrics.intervals import Interval, bootstrap_intervals
from mhsvm.metrics.paired import Difference, adjust_p_values, paired_differences
from mhsvm.metrics.ranking import RankingCounts, ranking_intervals, ranking_metrics
from mhsvm.metrics.registered import (
    Arguments,
    MaskMetric,
    argument_line,
    chosen_metrics,
    column_label,
    list_metrics,
    measure_arrays,
    measure_masks,
    metric_arguments,
    metric_columns,
    register_metric,
)
from mhsvm.metrics.summary import Scores, occurring_classes, summarize
from mhsvm.plugins import import_folder

__all__ = [
    "BOUNDARY",
    "PER_IMAGE",
    "RANKING",
    "Arguments",
    "Calibration",
    "CalibrationCounts",
    "Difference",
    "Interval",
    "MaskMetric",
    "RankingCounts",
    "Scores",
    "adjust_p_values",
    "argument_line",
    "bootstrap_intervals",
    "boundary_distances",
    "calibration",
    "check_arrays",
    "chosen_metrics",
    "class_counts",
    "column_label",
    "confusion_array",
    "confusion_counts",
    "confusion_matrices",
    "count_pairs",
    "list_metrics",
    "measure_arrays",
    "measure_masks",
    "metric_arguments",
    "metric_columns",
    "occurring_classes",
    "paired_differences",
    "per_image",
    "ranking_intervals",
    "ranking_metrics",
    "register_metric",
    "summarize",
    "target_pixels",
    "threshold_sweep",
]

# an entry in a new file of this folder registers itself
import_folder(__name__)
