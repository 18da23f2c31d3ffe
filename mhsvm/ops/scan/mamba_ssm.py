"""The selective scan of the package mamba_ssm, if it is installed: the CUDA kernels of the authors of Mamba.

Letters are those of `mhsvm.ops`.
"""

import functools
import importlib

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from mhsvm.ops.scan import reference
from mhsvm.ops.traced_constant import traced_constant

_MODULE = "mamba_ssm.ops.selective_scan_interface"
# The compiled kernels. Releases after 2.3.2 build them on request only, and import without them.
_EXTENSION = "selective_scan_cuda"
_INSTALL = "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation 'mhsvm[mamba]'"
_REINSTALL = (
    "MAMBA_KEEP_CUDA_BUILD=TRUE pip install --no-build-isolation --force-reinstall --no-cache-dir --no-deps mamba-ssm"
)
# A constant in the source of its kernels.
_MAX_STATE = 256
_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32)


# A constant under torch.compile, which cannot trace an import.
@traced_constant
def unavailable_reason() -> str | None:
    """Why this machine cannot run it, or None if it can."""
    if not torch.cuda.is_available():
        return "it needs an NVIDIA GPU, and PyTorch finds none"
    return _import_failure()


def unsupported_reason(u: Tensor, delta: Tensor, A: Tensor, *arguments: object, **options: object) -> str | None:
    """Why it cannot take the arguments of a selective scan, or None if it can."""
    if u.device.type != "cuda":
        return f"it takes CUDA tensors, u is on {u.device}"
    if u.dtype not in _FLOAT_TYPES:
        return f"it takes float16, bfloat16 or float32, u is {u.dtype}"
    if A.shape[-1] > _MAX_STATE:
        return f"its states are at most {_MAX_STATE} numbers, A has n = {A.shape[-1]}"
    return None


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
) -> Tensor | tuple[Tensor, Tensor]:
    """`mhsvm.ops.scan.selective_scan.sequence_scan`. No gradient flows through the last state.

    The package takes u, delta, B, C and z in one type, A, D and delta_bias in float32, and steps that are contiguous in
    memory: mixed types are computed in float32, other memory orders are copied.
    Source: `selective_scan_fn` of mamba_ssm, one signature from 1.0 to 2.3 (Gu & Dao 2023, arXiv 2312.00752).
    """
    if not u.numel():
        # its kernels take no empty batch
        return reference.selective_scan(u, delta, A, B, C, D, z, delta_bias, delta_softplus, return_last_state)
    out_dtype = u.dtype
    mixed = any(x is not None and x.dtype != out_dtype for x in (delta, B, C, z))
    dtype = torch.float32 if mixed else out_dtype
    u, delta, B, C = (_steps_last(x, dtype) for x in (u, delta, B, C))
    z = None if z is None else _steps_last(z, dtype)
    A = A.float().contiguous()
    D, delta_bias = (None if x is None else x.float().contiguous() for x in (D, delta_bias))
    scan = importlib.import_module(_MODULE).selective_scan_fn
    result = scan(
        u,
        delta,
        A,
        B,
        C,
        D,
        z=z,
        delta_bias=delta_bias,
        delta_softplus=delta_softplus,
        return_last_state=return_last_state,
    )
    if not return_last_state:
        return result.to(out_dtype).mT
    y, last_state = result
    return y.to(out_dtype).mT, _LastState.apply(last_state)


def _steps_last(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(b, l, ...) -> (b, ..., l), the order of the package."""
    return x.to(dtype).movedim(1, -1).contiguous()


class _LastState(torch.autograd.Function):
    """The last state itself; mamba_ssm would drop its gradient silently."""

    @staticmethod
    def forward(ctx, state):
        return state.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        raise ValueError(
            "backend 'mamba_ssm' has no gradient of the last state; scan with another backend, or detach the state"
        )


@functools.cache
def _import_failure() -> str | None:
    try:
        interface = importlib.import_module(_MODULE)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "mamba_ssm":
            return f"mamba_ssm is not installed: {_INSTALL}, which compiles it with nvcc"
        return f"mamba_ssm is installed and cannot be imported: {error}"
    # The first call would fail. Older releases have no such None: they do not import without the extension.
    if vars(interface).get(_EXTENSION, interface) is None:
        return f"mamba_ssm is installed without its CUDA kernels ({_extension_failure()}): reinstall it by {_REINSTALL}"
    return None


def _extension_failure() -> str:
    try:
        importlib.import_module(_EXTENSION)
    except ImportError as error:
        return str(error)
    return f"it did not find {_EXTENSION}"
