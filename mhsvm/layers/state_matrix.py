"""The state matrix A of a scan, in the memory order in which the Triton kernels read it.

Letters are those of `mhsvm.ops`.
"""

from typing import Any

import torch
from torch import Tensor

from mhsvm.ops.dispatch import is_exporting


def state_matrix(log: Tensor) -> Tensor:
    """A = -exp(log), (..., d, n), with the channels of a state contiguous in memory.

    The kernels write its gradient in the same memory order. So nothing is copied, and forward and backward together are
    three small kernels instead of six. Under torch.compile it is plain operations, which the compiler fuses, and
    under torch.export too.
    """
    return -torch.exp(log) if torch.compiler.is_compiling() or is_exporting() else _StateMatrix.apply(log)


class _StateMatrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, log: Tensor) -> Tensor:
        log = log.mT
        A = torch.exp(log, out=torch.empty(log.shape, dtype=log.dtype, device=log.device)).neg_().mT
        ctx.save_for_backward(A)
        return A

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (A,) = ctx.saved_tensors
        return grad * A
