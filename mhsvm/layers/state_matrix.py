"""The state matrix A of a scan, in the memory order in which the Triton kernels read it.

d channels, n states.
"""

import torch
from torch import Tensor


def state_matrix(log: Tensor) -> Tensor:
    """A = -exp(log), (..., d, n); in memory a state's channels lie side by side.

    So do those of its gradient, as the kernels give it: nothing is copied from one order to the other, and forward and
    backward together are three small kernels instead of six. torch's compiler, which joins them to what is around them,
    gets plain operations.
    """
    return -torch.exp(log) if torch.compiler.is_compiling() else _StateMatrix.apply(log)


class _StateMatrix(torch.autograd.Function):
    @staticmethod
    def forward(ctx, log):
        log = log.mT
        A = torch.exp(log, out=torch.empty(log.shape, dtype=log.dtype, device=log.device)).neg_().mT
        ctx.save_for_backward(A)
        return A

    @staticmethod
    def backward(ctx, grad):
        (A,) = ctx.saved_tensors
        return grad * A
