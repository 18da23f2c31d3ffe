"""Figures of merit: counts an image, and what they sum up to."""

from mhsvm.metrics.counts import (
    PER_IMAGE,
    class_counts,
    confusion_counts,
    confusion_matrices,
    per_image,
    summarize,
)

__all__ = ["PER_IMAGE", "class_counts", "confusion_counts", "confusion_matrices", "per_image", "summarize"]
