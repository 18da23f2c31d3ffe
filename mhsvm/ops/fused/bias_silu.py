"""The bias of a convolution and SiLU in one pass over the map."""

import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fused import bias_silu_launch as triton_bias_silu
from mhsvm.ops.fusion import fuses


def bias_silu(x: Tensor, bias: Tensor) -> Tensor:
    """SiLU(x + bias) of a map: what follows a convolution that was called without its bias.

    For a map whose channels lie side by side in memory it is one Triton kernel on a GPU, unless the environment
    variable MHSVM_BACKEND names another backend; elsewhere, under torch.compile, and for maps in another order, it is
    torch's operations.

    Args:
        x: (b, c, h, w), any float type.
        bias: (c), any float type: the kernel adds it in float32, torch's operations in the type of x.
    Returns:
        (b, c, h, w), in the type of x.
    Raises:
        ValueError: The shapes do not belong together.
    """
    if x.ndim != 4 or bias.shape != x.shape[1:2]:
        raise ValueError(f"x is (b, c, h, w) and bias (c); received {tuple(x.shape)} and {tuple(bias.shape)}")
    if fuses(x) and x.permute(0, 2, 3, 1).is_contiguous():
        return triton_bias_silu.bias_silu(x, bias)
    return composed_bias_silu(x, bias)


def composed_bias_silu(x: Tensor, bias: Tensor) -> Tensor:
    """`bias_silu` by torch's operations: the reference of the fused one."""
    return F.silu(x + bias.to(x.dtype)[:, None, None])
