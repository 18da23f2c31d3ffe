"""Prepared sets, and predictions on them, as HDF5: nothing else in the package opens HDF5 files."""

from mhsvm.data.store.predictions import PredictionSet, PredictionWriter
from mhsvm.data.store.prepared import PreparedSet, Sample, write_set

__all__ = ["PredictionSet", "PredictionWriter", "PreparedSet", "Sample", "write_set"]
