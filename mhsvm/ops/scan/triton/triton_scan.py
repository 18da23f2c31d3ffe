"""The Triton scans. Triton is imported when one first runs."""

from mhsvm.ops.scan.operators import ScanOperators
from mhsvm.ops.scan.triton.plan import num_saved


def saved_shape(b: int, length: int, g: int, n: int, e: int) -> tuple[int, ...]:
    """Shape of the states that a scan saves for its backward pass."""
    return b, num_saved(length, n), g, n, e


_operators = ScanOperators("triton", "mhsvm.ops.scan.triton.triton_launch", saved_shape)
selective_scan, route_scan = _operators.selective_scan, _operators.route_scan
