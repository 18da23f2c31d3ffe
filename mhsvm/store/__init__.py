"""HDF5 files of prepared sets, predictions and gate maps. No other room opens HDF5 files."""

from mhsvm.store.gate_maps import BlockGates, GateMaps, read_gate_maps, write_gate_maps
from mhsvm.store.predictions import PredictionSet, PredictionWriter
from mhsvm.store.prepared import SYNTHETIC, SYNTHETIC_MARKER, PreparedSet, Sample, write_set
from mhsvm.store.ratings import Rating, Ratings, check_raters

__all__ = [
    "SYNTHETIC",
    "SYNTHETIC_MARKER",
    "BlockGates",
    "GateMaps",
    "PredictionSet",
    "PredictionWriter",
    "PreparedSet",
    "Rating",
    "Ratings",
    "Sample",
    "check_raters",
    "read_gate_maps",
    "write_gate_maps",
    "write_set",
]
