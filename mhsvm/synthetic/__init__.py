"""Drawn images that look like dermoscopy, with exact masks: data for quickstarts and tests."""

from mhsvm.synthetic.layouts import list_layouts, write_synthetic_set
from mhsvm.synthetic.sample import draw_sample

__all__ = ["draw_sample", "list_layouts", "write_synthetic_set"]
