"""LayerNorm over the last axis, alone or as the input of a gate."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.fused.output_dtype import autocast_dtype, norm_dtype
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

# Numbers of a tile: 8 to 16 a lane of 4 warps; backward, registers also hold the sums over rows.
_TILE = 2048
_BACKWARD_TILE = 1024
# Programs backward, each with its own partial sums: as many as keep a large GPU busy.
_MAX_PROGRAMS = 1024


def layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    autocast_output: bool = False,
    backend: str = "auto",
) -> Tensor:
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis, then * SiLU(gate) if there is one.

    Statistics are float32, or float64 for such an x. The backend "triton" computes it in one kernel each way; its
    gradients have the same bits in every run.

    Args:
        x: (..., c), any float type.
        weight, bias: (c).
        gate: Shaped like x.
        eps: Added to the variance.
        autocast_output: Under autocast, return its 16-bit type instead of float32: for a following linear layer or
            convolution, which would round to that type itself.
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        Shaped like x, in the type that torch's operations give; with `autocast_output` under autocast in autocast's.
    Raises:
        ValueError: The shapes do not fit together, or `backend` is unknown or cannot run here.
    Source: Ba et al. 2016, arXiv 1607.06450.
    """
    if x.ndim == 0 or weight.shape != x.shape[-1:] or bias.shape != x.shape[-1:]:
        raise ValueError(
            f"weight and bias have one number a channel, that is x.shape[-1:]; received x {tuple(x.shape)}, "
            f"weight {tuple(weight.shape)}, bias {tuple(bias.shape)}"
        )
    refuse_empty("weight", weight, "c", batch=False)
    if gate is not None and gate.shape != x.shape:
        raise ValueError(f"the gate is shaped like x, {tuple(x.shape)}; received {tuple(gate.shape)}")
    return LAYER_NORM(backend, x, weight, bias, gate=gate, eps=eps, autocast_output=autocast_output)


def layer_norm_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    autocast_output: bool = False,
) -> Tensor:
    """`layer_norm` by torch's operations."""
    y = F.layer_norm(x, weight.shape, weight, bias, eps)
    if gate is not None:
        y = y * F.silu(gate)
    dtype = autocast_dtype(x) if autocast_output else None
    return y if dtype is None else y.to(dtype)


def triton_layer_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    gate: Tensor | None = None,
    eps: float = 1e-5,
    autocast_output: bool = False,
) -> Tensor:
    """`layer_norm` by kernels."""
    dtype = norm_dtype(x, gate, autocast_output=autocast_output)
    return _LayerNorm.apply(x, weight, bias, gate, eps, dtype)


LAYER_NORM = Operation("layer_norm", layer_norm_reference)
LAYER_NORM.register("triton", triton_layer_norm, unsupported_reason=unsupported_by_triton, traceable=False)


class _LayerNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, gate, eps, dtype):
        from mhsvm.ops.fused.layer_norm_kernels import layer_norm_fwd_kernel

        ctx.eps = eps
        ctx.save_for_backward(x, weight, bias, gate)
        x, gate = x.contiguous(), None if gate is None else gate.contiguous()
        weight, bias = weight.contiguous(), bias.contiguous()
        y = torch.empty_like(x, dtype=dtype)
        rows, tile = _tile(x, _TILE)
        if rows:
            with torch.cuda.device_of(x):
                layer_norm_fwd_kernel[(-(-rows // tile["L"]),)](
                    p_x=x, p_weight=weight, p_bias=bias, p_gate=gate, p_y=y, rows=rows, eps=eps, **tile, num_warps=4
                )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.layer_norm_kernels import layer_norm_bwd_kernel

        x, weight, bias, gate = ctx.saved_tensors
        grad_y, x = grad_y.contiguous(), x.contiguous()
        weight, bias = weight.contiguous(), bias.contiguous()
        gate = None if gate is None else gate.contiguous()
        grad_x, grad_gate = torch.empty_like(x), None if gate is None else torch.empty_like(gate)
        rows, tile = _tile(x, _BACKWARD_TILE)
        programs = min(-(-rows // tile["L"]), _MAX_PROGRAMS)
        sums = torch.empty((programs, 2, len(weight)), dtype=torch.float32, device=x.device)
        if rows:
            with torch.cuda.device_of(x):
                layer_norm_bwd_kernel[(programs,)](
                    p_grad_y=grad_y, p_x=x, p_weight=weight, p_bias=bias, p_gate=gate, p_grad_x=grad_x,
                    p_grad_gate=grad_gate, p_sums=sums, rows=rows, eps=ctx.eps, **tile, num_warps=4,
                )  # fmt: skip
        grad_weight, grad_bias = sums.sum(0)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_gate, None, None


def _tile(x: Tensor, numbers: int) -> tuple[int, dict[str, int]]:
    """Number of rows of a tensor, and a tile of about `numbers` numbers."""
    channels = x.shape[-1]
    padded = 1 << (channels - 1).bit_length()
    return x.numel() // channels, {"CHANNELS": channels, "L": max(1, numbers // padded), "C": padded}
