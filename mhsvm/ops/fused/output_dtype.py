"""Output types of torch's operations, for the kernels that replace them."""

import torch
from torch import Tensor


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The 16-bit type of products of such a tensor under autocast; None outside of autocast."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None


def norm_dtype(x: Tensor, other: Tensor | None = None, *, autocast_output: bool = False) -> torch.dtype:
    """The type of a norm of x that is combined with another tensor: float32 under autocast, or autocast's if asked."""
    dtype = autocast_dtype(x)
    if dtype is None:
        return x.dtype if other is None else torch.promote_types(x.dtype, other.dtype)
    return dtype if autocast_output else torch.float32
