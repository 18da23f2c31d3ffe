"""GroupNorm of a map with what a stage of a U-shaped network does to the result."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fused import group_norm_launch as triton_norm
from mhsvm.ops.fusion import autocast_dtype, fuses

RESIZES = ("keep", "halve", "double")


def group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """GELU(resize(GroupNorm(x))) + skip.

    On a GPU these are two Triton kernels, unless the environment variable MHSVM_BACKEND names another backend;
    elsewhere, and under torch.compile, they are torch's operations. GELU is the exact one, with erf.

    Args:
        x: (b, c, h, w), any float type; statistics are float32, or float64 for such an x.
        weight, bias: (c).
        groups: Number of groups, a divisor of c.
        resize: "keep"; "halve", the maximum of each 2 x 2 square, for even h and w; or "double", bilinear with corners
            on corners.
        skip: Shaped like the output; None adds nothing.
        epsilon: Added to the variance.
    Returns:
        (b, c, h', w') with h' = h, h/2 or 2h, w' likewise, in the type that torch's operations give.
    Raises:
        ValueError: Shapes do not belong together, or `resize` is unknown.
    Source: Wu & He 2018, arXiv 1803.08494; Hendrycks & Gimpel 2016, arXiv 1606.08415.
    """
    _check(x, weight, bias, groups, resize, skip)
    if not fuses(x):
        return composed_group_norm_gelu(x, weight, bias, groups=groups, resize=resize, skip=skip, epsilon=epsilon)
    dtype = x.dtype if skip is None else torch.promote_types(x.dtype, skip.dtype)
    if autocast_dtype(x) is not None:
        dtype = torch.float32
    return triton_norm.group_norm_gelu(
        x, weight, bias, skip, groups=groups, resize=resize, epsilon=epsilon, dtype=dtype
    )


def composed_group_norm_gelu(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    *,
    groups: int,
    resize: str = "keep",
    skip: Tensor | None = None,
    epsilon: float = 1e-5,
) -> Tensor:
    """`group_norm_gelu` by torch's operations: the reference of the fused one."""
    x = F.group_norm(x, groups, weight, bias, epsilon)
    if resize == "halve":
        x = F.max_pool2d(x, 2)
    elif resize == "double":
        x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
    x = F.gelu(x)
    return x if skip is None else x + skip


def _check(x: Tensor, weight: Tensor, bias: Tensor, groups: int, resize: str, skip: Tensor | None) -> None:
    if resize not in RESIZES:
        raise ValueError(f"resize is one of {', '.join(RESIZES)}; received {resize!r}")
    if x.ndim != 4 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"x is (b, c, h, w) with c a multiple of groups={groups}; received {tuple(x.shape)}")
    _, c, h, w = x.shape
    if weight.shape != (c,) or bias.shape != (c,):
        raise ValueError(
            f"weight and bias have one number for each of {c} channels; received {tuple(weight.shape)} and "
            f"{tuple(bias.shape)}"
        )
    if resize == "halve" and (h % 2 or w % 2):
        raise ValueError(f"a map to be halved has even sides; received {h} x {w}")
    if skip is not None and skip.shape != (shape := (*x.shape[:2], *triton_norm.resized(h, w, resize))):
        raise ValueError(f"skip is shaped like the output, {shape}; received {tuple(skip.shape)}")
