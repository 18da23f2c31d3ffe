"""Where one kernel stands in for several of torch's operations."""

import torch
from torch import Tensor

from mhsvm.ops import availability, dispatch
from mhsvm.ops.dispatch import requested_name


def runs_triton(x: Tensor, *, backend: str = "auto") -> bool:
    """Whether Triton's kernels run here on such a tensor, and the backend, or MHSVM_BACKEND for "auto", is no other."""
    if requested_name(backend) not in ("auto", "triton"):
        return False
    return availability.unsupported_tensor_reason(x) is None and availability.unavailable_reason() is None


def fuses(x: Tensor) -> bool:
    """Whether Triton's kernels run here, and torch's compiler is not at work, which joins such operations itself."""
    return not torch.compiler.is_compiling() and not dispatch._left_to_compiler.get() and runs_triton(x)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The 16-bit type that autocast gives to products of such a tensor; None outside of autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
