"""Synthetic images that look like dermoscopy, with exact masks, for quickstarts and tests."""

from mhsvm.synthetic.layouts import list_layouts, write_synthetic_set
from mhsvm.synthetic.sample import generate_sample

__all__ = ["generate_sample", "list_layouts", "write_synthetic_set"]
