"""The causal convolution in front of a Mamba block's scan, by the package that mamba_ssm takes for it."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from mhsvm.ops.backends import requested_name

# What its kernels are compiled for.
_FLOAT_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_WIDTHS = (2, 3, 4)


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
