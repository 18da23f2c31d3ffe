"""LayerNorm over the last axis, with gradients. Triton is imported where it first runs."""

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

# Numbers of a tile: 8 to 16 a lane of 4 warps; backward also holds the sums over rows.
_TILE = 2048
_BACKWARD_TILE = 1024
# Programs backward, each with sums of its own: as many as keep a large GPU busy.
_MAX_PROGRAMS = 1024


def layer_norm(
    x: Tensor, weight: Tensor, bias: Tensor, gate: Tensor | None, *, epsilon: float, dtype: torch.dtype
) -> Tensor:
    """`mhsvm.ops.fused.layer_norm`; its gradients have the same bits in every run."""
    return _LayerNorm.apply(x, weight, bias, gate, epsilon, dtype)


class _LayerNorm(torch.autograd.Function):
    """No operator known to torch's compiler, which makes kernels of its own of this."""

    @staticmethod
    def forward(ctx, x, weight, bias, gate, epsilon, dtype):
        from mhsvm.ops.fused.layer_norm_kernels import normalize_kernel

        ctx.epsilon = epsilon
        ctx.save_for_backward(x, weight, bias, gate)
        x, gate = x.contiguous(), None if gate is None else gate.contiguous()
        y = torch.empty_like(x, dtype=dtype)
        rows, tile = _cut(x, _TILE)
        if rows:
            with torch.cuda.device_of(x):
                normalize_kernel[(-(-rows // tile["ROWS"]),)](
                    x, weight, bias, gate, y, rows, epsilon, **tile, num_warps=4
                )
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx, grad_y):
        from mhsvm.ops.fused.layer_norm_kernels import differentiate_kernel

        x, weight, bias, gate = ctx.saved_tensors
        grad_y, x = grad_y.contiguous(), x.contiguous()
        gate = None if gate is None else gate.contiguous()
        grad_x, grad_gate = torch.empty_like(x), None if gate is None else torch.empty_like(gate)
        rows, tile = _cut(x, _BACKWARD_TILE)
        programs = min(-(-rows // tile["ROWS"]), _MAX_PROGRAMS)
        sums = torch.empty((programs, 2, len(weight)), dtype=torch.float32, device=x.device)
        if rows:
            with torch.cuda.device_of(x):
                differentiate_kernel[(programs,)](
                    grad_y, x, weight, bias, gate, grad_x, grad_gate, sums, rows, ctx.epsilon, **tile, num_warps=4
                )
        grad_weight, grad_bias = sums.sum(0)
        return grad_x, grad_weight.to(weight.dtype), grad_bias.to(bias.dtype), grad_gate, None, None


def _cut(x: Tensor, numbers: int) -> tuple[int, dict[str, int]]:
    """Rows of a tensor, and the tile they are cut into."""
    channels = x.shape[-1]
    padded = 1 << (channels - 1).bit_length()
    return x.numel() // channels, {"CHANNELS": channels, "ROWS": max(1, numbers // padded), "C": padded}
