"""Norms of constant rows and groups: the kernels give the bias, as the reference in float64 does.

The mean of constant numbers must be exact. A rounding error of it would be multiplied by 1 / sqrt(eps), since the
variance is 0.
"""

import pytest
import torch

from mhsvm.ops.fused.branches import join_norm, split_norm
from mhsvm.ops.fused.group_norm import RESIZES, group_norm_gelu
from mhsvm.ops.fused.layer_norm import layer_norm

pytestmark = pytest.mark.interpreter

# Few bits, so that sums of any number of channels are exact.
VALUES = (3.5, -20.0, 0.75)
LIMIT = 1e-6


def make_parameters(channels: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias (c)."""
    generator = torch.Generator().manual_seed(channels)
    weight, bias = torch.randn(2, channels, generator=generator)
    return weight.to(device), bias.to(device)


def doubles(*tensors: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return tuple(x.double() for x in tensors)


@pytest.mark.parametrize("channels", [24, 33, 1000])
@pytest.mark.parametrize("gated", [False, True])
def test_layer_norm_of_constant_rows(channels, gated, kernel_device, relative_error):
    x = torch.tensor(VALUES, device=kernel_device).repeat(5)[:, None].expand(-1, channels).contiguous()
    weight, bias = make_parameters(channels, kernel_device)
    gate = torch.linspace(-3, 3, x.numel(), device=kernel_device).view_as(x) if gated else None
    y = layer_norm(x, weight, bias, gate=gate, backend="triton")
    expected = layer_norm(*doubles(x, weight, bias), gate=gate.double() if gated else None, backend="reference")
    assert relative_error(y, expected) < LIMIT
    if not gated:
        assert relative_error(y, bias.expand_as(x)) < LIMIT


@pytest.mark.parametrize(("channels", "branches"), [(24, 4), (15, 3), (64, 1)])
def test_norms_around_branches_of_constant_cells(channels, branches, kernel_device, relative_error):
    x = torch.tensor(VALUES, device=kernel_device).repeat(7).view(1, 1, 3, 7).expand(2, channels, -1, -1).contiguous()
    weight, bias = make_parameters(channels, kernel_device)
    skip_scale = torch.tensor([2.0], device=kernel_device)
    split = split_norm(x, weight, bias, skip_scale, branches=branches, backend="triton")
    expected = split_norm(*doubles(x, weight, bias, skip_scale), branches=branches, backend="reference")
    assert relative_error(split.parts, expected.parts) < LIMIT

    # With one bias for all channels, the rows of the join are constant, too.
    bias = torch.full_like(bias, 0.5)
    split = split_norm(x, weight, bias, skip_scale, branches=branches, backend="triton")
    y = join_norm(torch.full_like(split.parts, 3.0), split, backend="triton")
    assert relative_error(y, bias.expand_as(y)) < LIMIT


@pytest.mark.parametrize("resize", RESIZES)
@pytest.mark.parametrize(("shape", "groups"), [((2, 8, 6, 10), 4), ((1, 9, 4, 2), 3), ((1, 12, 16, 12), 4)])
def test_group_norm_of_constant_groups(resize, shape, groups, kernel_device, relative_error):
    width = shape[1] // groups
    values = torch.tensor(VALUES, device=kernel_device).repeat(groups)[:groups].repeat_interleave(width)
    x = values[None, :, None, None].expand(shape).contiguous()
    weight, bias = make_parameters(shape[1], kernel_device)
    y = group_norm_gelu(x, weight, bias, groups=groups, resize=resize, backend="triton")
    expected = group_norm_gelu(*doubles(x, weight, bias), groups=groups, resize=resize, backend="reference")
    assert relative_error(y, expected) < LIMIT
