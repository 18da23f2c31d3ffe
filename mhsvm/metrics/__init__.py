"""Figures of merit: counts an image, and what they sum up to."""

from mhsvm.metrics.counts import PER_IMAGE, confusion_counts, per_image, summarize

__all__ = ["PER_IMAGE", "confusion_counts", "per_image", "summarize"]
