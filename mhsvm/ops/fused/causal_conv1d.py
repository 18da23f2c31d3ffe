"""The causal convolution in front of a Mamba block's scan."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.dispatch import requested_name
from mhsvm.ops.fused import causal_conv1d_launch as triton_convolution
from mhsvm.ops.fusion import runs_triton

# What the package's kernels are compiled for.
_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_WIDTHS = (2, 3, 4)


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """SiLU of the convolution of each channel with a kernel of its own, which reads no later step.

    Args:
        x: (b, d, l), any float type.
        weight: (d, k), the last of the k taps for the step itself.
        bias: (d).
        backend: Of the scan behind: "mamba_ssm" takes the package causal_conv1d where it is installed, "triton" and
            "auto" a kernel of our own where it runs; all else is torch's convolution.
    Returns:
        (b, d, l), in the type of x, or of torch's convolution under autocast.
    Raises:
        ValueError: Shapes do not belong together; or the package is installed and cannot be imported.
    Source: Gu & Dao 2023, arXiv 2312.00752, section 3.4.
    """
    if x.ndim != 3 or weight.ndim != 2 or bias.ndim != 1 or not x.shape[1] == len(weight) == len(bias):
        raise ValueError(
            "x is (b, d, l), weight (d, k), bias (d); received "
            f"{tuple(x.shape)}, {tuple(weight.shape)}, {tuple(bias.shape)}"
        )
    width = weight.shape[1]
    package = find_causal_conv1d(backend, x, width=width)
    if package is not None:
        return package(x.contiguous(), weight, bias, activation="silu")
    if width <= triton_convolution.MAX_TAPS and runs_triton(x, backend=backend):
        return triton_convolution.causal_conv1d(x, weight, bias)
    return composed_causal_conv1d(x, weight, bias)


def composed_causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`causal_conv1d` by torch's operations: the reference of the others."""
    # Padded on both sides: the first l outputs are the causal ones.
    y = F.conv1d(x, weight.unsqueeze(1), bias, padding=weight.shape[1] - 1, groups=len(weight))
    return F.silu(y[..., : x.shape[-1]])


def find_causal_conv1d(backend: str, x: Tensor, *, width: int) -> Callable[..., Tensor] | None:
    """`causal_conv1d_fn` of the package causal_conv1d, which fuses convolution and SiLU.

    Args:
        backend: Of the scans: only "mamba_ssm", here or in MHSVM_BACKEND, asks for it.
        x: What it shall convolve, (b, d, l), for its device and type.
        width: Of the convolution.
    Returns:
        None where it was not asked for, is not installed or does not take such a call: torch convolves then.
    Raises:
        ValueError: It is installed and cannot be imported.
    """
    if requested_name(backend) != "mamba_ssm":
        return None
    if x.device.type != "cuda" or x.dtype not in _FLOAT_TYPES or width not in _WIDTHS:
        return None
    return _import()


@functools.cache
def _import() -> Callable[..., Tensor] | None:
    try:
        from causal_conv1d import causal_conv1d_fn
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "causal_conv1d":
            return None
        raise ValueError(
            f"causal_conv1d is installed and cannot be imported: {error}; "
            "reinstall or remove it, or choose another backend"
        ) from error
    return causal_conv1d_fn
