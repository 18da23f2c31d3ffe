"""The scans in CUDA C++, and whether they can take their inputs."""

from torch import Tensor

from mhsvm.ops.cuda.support import unsupported_by_cuda
from mhsvm.ops.scan.cuda.cuda_plan import saved_shape
from mhsvm.ops.scan.operators import ScanOperators

_MAX_STATES = 64


def unsupported_scan(u: Tensor, A: Tensor) -> str | None:
    """Why the kernels cannot take these inputs, or None if they can."""
    reason = unsupported_by_cuda(u)
    if reason is None and A.shape[-1] > _MAX_STATES:
        return f"its kernels hold at most {_MAX_STATES} states, and A has {A.shape[-1]}"
    if reason is None and not u.numel():
        return "its kernels take no empty batch"
    return reason


_operators = ScanOperators("cuda", "mhsvm.ops.scan.cuda.cuda_launch", saved_shape)
selective_scan, route_scan = _operators.selective_scan, _operators.route_scan
