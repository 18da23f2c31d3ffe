"""A linear layer on few and short rows, as a batch of products."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.fused.output_dtype import autocast_dtype
from mhsvm.ops.triton_support import unsupported_by_triton

# Rows of a product, and the limit of numbers in the products' parts of the weight's gradient.
_ROWS = 64
_MOST_NUMBERS = 1 << 16


def linear(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """x @ weight^T + bias, as torch's `linear`.

    The backend "triton" computes a batch of products of 64 rows each where that is faster: in float32, for a small
    number of rows that is a multiple of 64. Then the gradient of the weight, a sum over all rows, is a batch of short
    products and their sum. In 16 bits one product by cuBLAS is faster.

    Args:
        x: (..., c), any float type.
        weight: (o, c).
        bias: (o).
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        (..., o), in the type that torch's operation gives.
    Raises:
        ValueError: `backend` is unknown or cannot run here.
    """
    return LINEAR(backend, x, weight, bias)


def batched_linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`linear` by products of 64 rows, or by one product where that is faster."""
    if x.dtype != torch.float32 or autocast_dtype(x) is not None:
        return F.linear(x, weight, bias)
    num_products, rest = divmod(x.shape[:-1].numel(), _ROWS)
    if rest or num_products * weight.numel() > _MOST_NUMBERS:
        return F.linear(x, weight, bias)
    rows = x.reshape(num_products, _ROWS, x.shape[-1])
    # The products are added to the bias: for a product of few rows, cuBLAS would choose slow kernels.
    return torch.baddbmm(bias, rows, weight.expand(num_products, -1, -1).mT).view(*x.shape[:-1], len(bias))


LINEAR = Operation("linear", F.linear)
LINEAR.register("triton", batched_linear, unsupported_reason=unsupported_by_triton, traceable=False)
