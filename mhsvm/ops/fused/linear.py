"""A linear layer on few and short rows, as a batch of products."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fusion import autocast_dtype, fuses

# Rows of a product, and the most numbers of all products' parts of the weight's gradient.
_ROWS = 64
_MOST_NUMBERS = 1 << 16


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x @ weight^T + bias, as torch's `linear`.

    On a GPU, in float32, where the number of rows is a multiple of 64 and small, it is a batch of products of 64 rows
    each. So the gradient of the weight, a sum over all rows, is a batch of short products and their sum; and the bias
    is what the products are added to, where in one with few rows it makes cuBLAS choose slow kernels. In 16 bits, where
    cuBLAS has others, it would lose.

    Args:
        x: (..., c), any float type.
        weight: (o, c).
        bias: (o).
    Returns:
        (..., o), in the type that torch's operation gives.
    """
    if not fuses(x) or x.dtype != torch.float32 or autocast_dtype(x) is not None:
        return F.linear(x, weight, bias)
    num_products, rest = divmod(x.shape[:-1].numel(), _ROWS)
    if rest or num_products * weight.numel() > _MOST_NUMBERS:
        return F.linear(x, weight, bias)
    rows = x.reshape(num_products, _ROWS, x.shape[-1])
    return torch.baddbmm(bias, rows, weight.expand(num_products, -1, -1).mT).view(*x.shape[:-1], len(bias))
