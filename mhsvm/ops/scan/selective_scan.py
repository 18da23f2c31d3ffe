"""The selective scan: `selective_scan` in the layout of mamba_ssm, (b, d, l), and `sequence_scan` with time first.

`selective_scan` checks its arguments; `sequence_scan`, which the layers call, does not.
Letters are those of `mhsvm.ops`.
"""

import torch
from torch import Tensor

from mhsvm.ops import triton_support
from mhsvm.ops.dispatch import Operation
from mhsvm.ops.scan import chunked, mamba_ssm, portable, reference
from mhsvm.ops.scan.cpu import cpu_scan
from mhsvm.ops.scan.cuda import cuda_scan
from mhsvm.ops.scan.triton import triton_scan
from mhsvm.ops.sizes import refuse_empty

_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def selective_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Scan a sequence with a selective state-space recurrence.

    delta_t <- softplus(delta_t + delta_bias)    (softplus only with `delta_softplus`)
    s_t = exp(delta_t A) s_{t-1} + delta_t B_t u_t,  y_t = C_t s_t + D u_t,  then y_t * silu(z_t) if z is given

    Channel i uses B and C of group i // (d / g). Arguments, defaults and meaning are those of
    `selective_scan_fn` in the mamba_ssm package. Types may be mixed, as they are under autocast.

    Args:
        u: Input, (b, d, l), float16, bfloat16, float32 or float64.
        delta: Before bias and softplus, (b, d, l), dimensionless.
        A: Decay rates, (d, n), real and negative for a stable state.
        B: Input projection of each step, (b, g, n, l), or (b, n, l) for one group; g divides d.
        C: Output projection of each step, shaped as `B`.
        D: Weight of the direct path from u to y, (d).
        z: Gate, (b, d, l).
        delta_bias: Added to `delta`, (d).
        delta_softplus: Whether softplus is applied to delta + delta_bias.
        return_last_state: Whether to return the state after the last step too.
        backend: A name from `list_backends()`, or "auto": the name in the environment variable
            MHSVM_BACKEND, else the fastest that runs here.
    Returns:
        y, (b, d, l), in the type of `u`; with `return_last_state` the pair of y and the last state,
        (b, d, n). The state is kept in float32, or in float64 if `u` is float64.
    Raises:
        ValueError: Shapes, types or devices disagree, or `backend` is unknown or cannot run here
            (it says why).
    Source: Gu & Dao 2023, arXiv 2312.00752, algorithm 2.
    """
    check_types_and_devices(u=u, delta=delta, A=A, B=B, C=C, D=D, z=z, delta_bias=delta_bias)
    if u.dim() != 3 or u.shape[2] == 0:
        raise ValueError(f"u must be (b, d, l) with at least one step, got {tuple(u.shape)}")
    refuse_empty("u", u, "b, d, l")
    b, d, length = u.shape
    if A.dim() != 2 or A.shape[0] != d:
        raise ValueError(f"A must be (d, n) with u's d = {d} channels, got {tuple(A.shape)}")
    refuse_empty("A", A, "d, n", batch=False)
    _check_shape("delta", delta, "(b, d, l)", (b, d, length))
    _check_shape("D", D, "(d)", (d,))
    _check_shape("z", z, "(b, d, l)", (b, d, length))
    _check_shape("delta_bias", delta_bias, "(d)", (d,))
    B = B.unsqueeze(1) if B.dim() == 3 else B
    C = C.unsqueeze(1) if C.dim() == 3 else C
    groups = B.shape[1] if B.dim() == 4 else 1
    if groups == 0 or d % groups:
        raise ValueError(f"B's groups must divide u's d = {d} channels, got {groups} in {tuple(B.shape)}")
    _check_shape("B", B, "(b, g, n, l) or (b, n, l)", (b, groups, A.shape[1], length))
    _check_shape("C", C, "(b, g, n, l) or (b, n, l), like B", (b, groups, A.shape[1], length))

    u, delta, B, C = (x.movedim(-1, 1) for x in (u, delta, B, C))
    z = None if z is None else z.movedim(-1, 1)
    result = sequence_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state, backend=backend)
    if isinstance(result, Tensor):
        return result.mT
    y, last_state = result
    return y.mT, last_state


def sequence_scan(
    u: Tensor,
    delta: Tensor,
    A: Tensor,
    B: Tensor,
    C: Tensor,
    D: Tensor | None = None,
    z: Tensor | None = None,
    delta_bias: Tensor | None = None,
    delta_softplus: bool = False,
    return_last_state: bool = False,
    *,
    backend: str = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """`selective_scan` with time before channels, for callers whose shapes are right by construction.

    u, delta, z and y are (b, l, d), B and C (b, l, g, n). Otherwise as `selective_scan`, without its checks of shapes
    and types.

    Raises:
        ValueError: `backend` is unknown or cannot run here.
    """
    return SELECTIVE_SCAN(backend, u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)


def check_types_and_devices(*, u: Tensor, **others: Tensor | None) -> None:
    """Raise ValueError unless every tensor has a float type of the scan, and is on the device of u."""
    for name, tensor in {"u": u, **others}.items():
        if tensor is None:
            continue
        if tensor.is_complex():
            raise ValueError(f"{name} must be real, got {tensor.dtype}: complex states are not supported")
        if tensor.dtype not in _FLOAT_TYPES:
            raise ValueError(
                f"{name} must be float16, bfloat16, float32 or float64, got {tensor.dtype}: convert it first"
            )
        if tensor.device != u.device:
            raise ValueError(f"{name} is on {tensor.device} and u on {u.device}: move them to one device")


def _check_shape(name: str, tensor: Tensor | None, rule: str, expected: tuple[int, ...]) -> None:
    if tensor is not None and tuple(tensor.shape) != expected:
        raise ValueError(f"{name} must be {rule} = {expected} for this u and A, got {tuple(tensor.shape)}")


def _unsupported_by_cuda(u: Tensor, delta: Tensor, A: Tensor, *arguments: object, **options: object) -> str | None:
    return cuda_scan.unsupported_scan(u, A)


def _unsupported_by_triton(u: Tensor, delta: Tensor, A: Tensor, *arguments: object, **options: object) -> str | None:
    return triton_support.unsupported_scan(u, A)


SELECTIVE_SCAN = Operation("selective_scan", reference.selective_scan)
SELECTIVE_SCAN.register("cuda", cuda_scan.selective_scan, unsupported_reason=_unsupported_by_cuda)
SELECTIVE_SCAN.register("triton", triton_scan.selective_scan, unsupported_reason=_unsupported_by_triton)
SELECTIVE_SCAN.register("mamba_ssm", mamba_ssm.selective_scan, unsupported_reason=mamba_ssm.unsupported_reason)
SELECTIVE_SCAN.register("cpu", cpu_scan.selective_scan, unsupported_reason=cpu_scan.unsupported_reason)
SELECTIVE_SCAN.register("chunked", chunked.selective_scan)
SELECTIVE_SCAN.register("portable", portable.selective_scan)
