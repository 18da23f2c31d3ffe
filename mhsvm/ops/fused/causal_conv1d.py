"""The causal convolution before the scan of a Mamba block, with SiLU."""

import functools
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

# With more taps, the backward kernel would run out of registers.
_MAX_TAPS = 8
# Numbers of a tile, and the most channels of one.
_TILE = 1024
_MAX_TILE_CHANNELS = 64
# Supported by the package causal_conv1d.
_PACKAGE_TYPES = (torch.float16, torch.bfloat16, torch.float32)
_PACKAGE_TAPS = (2, 3, 4)


def causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor, *, backend: str = "auto") -> Tensor:
    """SiLU of a depthwise convolution that reads no later step.

    Args:
        x: (b, d, l), any float type.
        weight: (d, f); the last of the f taps weights the current step.
        bias: (d).
        backend: As in `mhsvm.ops.selective_scan`. "mamba_ssm" uses the package causal_conv1d, as the block of that
            package does, if it is installed and supports the call; else torch.
    Returns:
        (b, d, l), in the type of x, or of torch's convolution under autocast.
    Raises:
        ValueError: The shapes do not fit together, `backend` is unknown or cannot run here, or the package is
            installed and cannot be imported.
    Source: Gu & Dao 2023, arXiv 2312.00752, section 3.4.
    """
    if x.ndim != 3 or weight.ndim != 2 or bias.ndim != 1 or not x.shape[1] == len(weight) == len(bias):
        raise ValueError(
            "x is (b, d, l), weight (d, f), bias (d); received "
            f"{tuple(x.shape)}, {tuple(weight.shape)}, {tuple(bias.shape)}"
        )
    refuse_empty("x", x, "b, d, l")
    refuse_empty("weight", weight, "d, f", batch=False)
    return CAUSAL_CONV1D(backend, x, weight, bias)


def causal_conv1d_reference(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`causal_conv1d` by torch's operations."""
    # Padded on both sides: the first l outputs are the causal ones.
    y = F.conv1d(x, weight.unsqueeze(1), bias, padding=weight.shape[1] - 1, groups=len(weight))
    return F.silu(y[..., : x.shape[-1]])


def package_causal_conv1d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`causal_conv1d` by the package of that name if it supports the call, else by torch's operations."""
    convolve = _package_function(x, weight)
    if convolve is None:
        return causal_conv1d_reference(x, weight, bias)
    return convolve(x.contiguous(), weight, bias, activation="silu")


def _package_takes(x: Tensor, weight: Tensor, bias: Tensor) -> bool:
    return _package_function(x, weight) is not None


def _package_function(x: Tensor, weight: Tensor) -> Callable[..., Tensor] | None:
    """The package's convolution, or None if it cannot take these arguments or is not installed."""
    fits = x.device.type == "cuda" and x.dtype in _PACKAGE_TYPES and weight.shape[1] in _PACKAGE_TAPS
    return _import_package() if fits else None


@functools.cache
def _import_package() -> Callable[..., Tensor] | None:
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


@torch.library.custom_op(
    "mhsvm::triton_causal_conv1d", mutates_args=(), schema="(Tensor x, Tensor weight, Tensor bias) -> Tensor"
)
def triton_causal_conv1d(x, weight, bias):
    """`causal_conv1d` by kernels; the channels of a step are contiguous in the result."""
    from mhsvm.ops.fused.causal_conv1d_kernels import causal_conv1d_fwd_kernel

    y = _empty_steps(x)
    s_b, s_d, s_l = x.stride()
    with torch.cuda.device_of(x):
        causal_conv1d_fwd_kernel[_grid(x)](
            p_x=x, p_weight=weight.contiguous(), p_bias=bias.contiguous(), p_y=y, length=x.shape[2],
            channels=x.shape[1], s_b=s_b, s_l=s_l, s_d=s_d, **_tile(x, weight),
        )  # fmt: skip
    return y


@triton_causal_conv1d.register_fake
def _(x, weight, bias):
    return _empty_steps(x)


@torch.library.custom_op(
    "mhsvm::triton_causal_conv1d_backward",
    mutates_args=(),
    schema="(Tensor grad_y, Tensor x, Tensor weight, Tensor bias) -> (Tensor, Tensor)",
)
def _backward(grad_y, x, weight, bias):
    from mhsvm.ops.fused.causal_conv1d_kernels import causal_conv1d_bwd_kernel

    grad_x = _empty_steps(x)
    grid = _grid(x)
    sums = x.new_empty((grid[0] * grid[2], weight.numel() + bias.numel()), dtype=torch.float32)
    (s_b, s_d, s_l), (s_gb, s_gd, s_gl) = x.stride(), grad_y.stride()
    with torch.cuda.device_of(x):
        causal_conv1d_bwd_kernel[grid](
            p_grad_y=grad_y, p_x=x, p_weight=weight.contiguous(), p_bias=bias.contiguous(), p_grad_x=grad_x,
            p_sums=sums, length=x.shape[2], channels=x.shape[1], s_gb=s_gb, s_gl=s_gl, s_gd=s_gd, s_b=s_b,
            s_l=s_l, s_d=s_d, **_tile(x, weight),
        )  # fmt: skip
    return grad_x, sums.sum(0)


@_backward.register_fake
def _(grad_y, x, weight, bias):
    return _empty_steps(x), x.new_empty((weight.numel() + bias.numel(),), dtype=torch.float32)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _differentiate(ctx, grad_y):
    x, weight, bias = ctx.saved_tensors
    grad_x, sums = _backward(grad_y, x, weight, bias)
    grad_weight, grad_bias = sums.split((weight.numel(), bias.numel()))
    return grad_x, grad_weight.view(weight.shape).to(weight.dtype), grad_bias.to(bias.dtype)


triton_causal_conv1d.register_autograd(_differentiate, setup_context=_save)


def _unsupported_by_triton(x: Tensor, weight: Tensor, bias: Tensor) -> str | None:
    if weight.shape[1] > _MAX_TAPS:
        return f"its kernels have at most {_MAX_TAPS} taps, and weight has {weight.shape[1]}"
    return unsupported_by_triton(x)


CAUSAL_CONV1D = Operation("causal_conv1d", causal_conv1d_reference)
CAUSAL_CONV1D.register("triton", triton_causal_conv1d, unsupported_reason=_unsupported_by_triton)
CAUSAL_CONV1D.register("mamba_ssm", package_causal_conv1d, worthwhile=_package_takes)


def _empty_steps(x: Tensor) -> Tensor:
    """An empty tensor like x, in memory (b, l, d)."""
    b, d, length = x.shape
    return x.new_empty((b, length, d)).mT


def _tile(x: Tensor, weight: Tensor) -> dict[str, int]:
    channels = min(1 << (x.shape[1] - 1).bit_length(), _MAX_TILE_CHANNELS)
    return {"TAPS": weight.shape[1], "T": _TILE // channels, "D": channels, "num_warps": 4}


def _grid(x: Tensor) -> tuple[int, int, int]:
    b, d, length = x.shape
    channels = min(1 << (d - 1).bit_length(), _MAX_TILE_CHANNELS)
    return -(-length // (_TILE // channels)), -(-d // channels), b
