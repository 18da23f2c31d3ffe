"""The bridge over skip connections as an operator of torch, with gradients, known to its compiler.

b batch, n pixels of all maps side by side, c channels of all maps side by side, t tiles of the largest map.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# Pixels and channels of a tile.
_PIXELS, _CHANNELS = 256, 8
# Gates of a program, and the most channels that it takes at once.
_GATES, _MAX_MIXED = 16, 128
# Tiles whose sums are added at once, and samples.
_SUMS, _SAMPLES = 32, 16
# The convolution over space.
TAPS, DILATION = 7, 3
_SPACE = {"TAPS": TAPS, "DILATION": DILATION}


def skip_bridge(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> list[Tensor]:
    """`mhsvm.ops.fused.skip_bridge` of maps of one type; contiguous."""
    layers = ([x.float() for x in parameters] for parameters in (gate_weights, gate_biases))
    return _skip_bridge(list(skips), spatial_weight, spatial_bias, mix_weight, *layers)[: len(skips)]


@torch.library.custom_op(
    "mhsvm::triton_skip_bridge",
    mutates_args=(),
    schema="(Tensor[] skips, Tensor spatial_weight, Tensor spatial_bias, Tensor mix_weight, Tensor[] gate_weights, "
    "Tensor[] gate_biases) -> Tensor[]",
)
def _skip_bridge(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases):
    from mhsvm.ops.fused import skip_bridge_kernels as kernels

    results = _empty_results(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases)
    outs, (shares, averages, gates, statistics, greatest) = results[: len(skips)], results[len(skips) :]
    skips, gate_weights, gate_biases = (
        tuple(x.contiguous() for x in tensors) for tensors in (skips, gate_weights, gate_biases)
    )
    channels, pixels, widths = _sizes(skips)
    grid, num_tiles = _grid(skips), _num_tiles(skips)
    b, n, c = len(skips[0]), sum(pixels), sum(channels)
    sums = shares.new_empty((b, num_tiles, c))
    with torch.cuda.device_of(shares):
        kernels.measure_kernel[grid](skips, statistics, greatest, channels, pixels, n, **_tile())
        kernels.attend_kernel[grid](
            skips, statistics, spatial_weight.contiguous(), spatial_bias, shares, sums, channels, pixels, widths, n, c,
            num_tiles, **_tile(), **_SPACE,
        )  # fmt: skip
        kernels.gate_kernel[(-(-c // _GATES), b)](
            sums, mix_weight.contiguous(), gate_weights, gate_biases, averages, gates, channels, pixels, c, num_tiles,
            P=_PIXELS, **_gate_tile(c), S=_SUMS, num_warps=8,
        )  # fmt: skip
        kernels.apply_kernel[grid](skips, shares, gates, tuple(outs), channels, pixels, n, c, **_tile())
    return results


# The maps, then what is kept: s, averages, gates, mean and maximum over channels, and the channel of the maximum.
@_skip_bridge.register_fake
def _empty_results(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases):
    channels, pixels, _ = _sizes(skips)
    b, n, c = len(skips[0]), sum(pixels), sum(channels)
    kept = [skips[0].new_empty(shape, dtype=torch.float32) for shape in ((b, n), (b, c), (b, c), (b, 2, n))]
    return [*_empty_maps(skips), *kept, skips[0].new_empty((b, n), dtype=torch.int32)]


@torch.library.custom_op(
    "mhsvm::triton_skip_bridge_backward",
    mutates_args=(),
    schema="(Tensor[] grads, Tensor[] skips, Tensor spatial_weight, Tensor mix_weight, Tensor[] gate_weights, "
    "Tensor[] kept) -> Tensor[]",
)
def _skip_bridge_backward(grads, skips, spatial_weight, mix_weight, gate_weights, kept):
    from mhsvm.ops.fused import skip_bridge_backward_kernels as kernels

    results = _empty_gradients(grads, skips, spatial_weight, mix_weight, gate_weights, kept)
    grad_skips, (grad_weight, grad_bias, grad_shared) = results[: len(skips)], results[len(skips) :]
    shares, averages, gates, statistics, greatest = kept
    grads, skips, gate_weights = (tuple(x.contiguous() for x in tensors) for tensors in (grads, skips, gate_weights))
    spatial_weight, mix_weight = spatial_weight.contiguous(), mix_weight.contiguous()
    channels, pixels, widths = _sizes(skips)
    grid, num_tiles = _grid(skips), _num_tiles(skips)
    b, n, c = len(skips[0]), sum(pixels), sum(channels)
    sums, grad_z = shares.new_empty((b, num_tiles, c)), torch.empty_like(shares)
    grad_v, grad_mixed = torch.empty_like(gates), torch.empty_like(gates)
    # A row's taps and the bias.
    row = 1 << TAPS.bit_length()
    parts = shares.new_empty((grid[0], 2 * TAPS, row))
    blocks = -(-c // _GATES)
    with torch.cuda.device_of(shares):
        kernels.sum_kernel[grid](grads, skips, shares, sums, channels, pixels, n, c, num_tiles, **_tile())
        kernels.spread_kernel[(blocks, b)](
            sums, gates, gate_weights, grad_v, grad_mixed, channels, pixels, c, num_tiles,
            P=_PIXELS, **_gate_tile(c), S=_SUMS, num_warps=8,
        )  # fmt: skip
        kernels.slope_kernel[grid](
            grads, skips, shares, gates, grad_mixed, mix_weight, grad_z, channels, pixels, n, c, **_tile()
        )
        kernels.differentiate_kernel[grid](
            grads, shares, greatest, gates, grad_mixed, mix_weight, grad_z, spatial_weight, tuple(grad_skips),
            channels, pixels, widths, n, c, **_tile(), **_SPACE,
        )  # fmt: skip
        kernels.correlate_kernel[(grid[0], 2 * TAPS)](
            grad_z, statistics, parts, pixels, widths, n, b, P=_PIXELS, X=row, num_warps=4, **_SPACE
        )
        kernels.sum_weights_kernel[(blocks + 2 * TAPS + 3,)](
            parts, grad_v, grad_mixed, averages, mix_weight, grad_shared, grad_weight, grad_bias, grid[0], b, c,
            **_gate_tile(c), B=_SAMPLES, S=_SUMS, X=row, TAPS=TAPS, num_warps=4, num_stages=1,
        )  # fmt: skip
    return results


# Of the maps, of all gates' weights and biases, and of the convolutions: over space, its bias, over channels.
@_skip_bridge_backward.register_fake
def _empty_gradients(grads, skips, spatial_weight, mix_weight, gate_weights, kept):
    c = sum(skip.shape[1] for skip in skips)
    shapes = (c, c), (c,), (spatial_weight.numel() + 1 + mix_weight.numel(),)
    return [*_empty_maps(skips), *(skips[0].new_empty(shape, dtype=torch.float32) for shape in shapes)]


def _save(ctx, inputs, output):
    skips, spatial_weight, spatial_bias, mix_weight, gate_weights, _ = inputs
    kept = output[len(skips) :]
    ctx.num_maps, ctx.bias_dtype = len(skips), spatial_bias.dtype
    ctx.save_for_backward(spatial_weight, mix_weight, *skips, *gate_weights, *kept)
    ctx.mark_non_differentiable(*kept)
    ctx.set_materialize_grads(False)


def _differentiate(ctx, grads):
    spatial_weight, mix_weight, *tensors = ctx.saved_tensors
    m = ctx.num_maps
    skips, gate_weights, kept = tensors[:m], tensors[m : 2 * m], tensors[2 * m :]
    grads = [torch.zeros_like(x) if grad is None else grad for grad, x in zip(grads[:m], skips, strict=True)]
    *grad_skips, grad_weight, grad_bias, grad_shared = _skip_bridge_backward(
        grads, skips, spatial_weight, mix_weight, gate_weights, kept
    )
    channels = [skip.shape[1] for skip in skips]
    shared = grad_shared.split((spatial_weight.numel(), 1, mix_weight.numel()))
    return (
        grad_skips,
        shared[0].view(spatial_weight.shape).to(spatial_weight.dtype),
        shared[1].to(ctx.bias_dtype),
        shared[2].view(mix_weight.shape).to(mix_weight.dtype),
        list(grad_weight.split(channels)),
        list(grad_bias.split(channels)),
    )


_skip_bridge.register_autograd(_differentiate, setup_context=_save)


def _empty_maps(skips: Sequence[Tensor]) -> list[Tensor]:
    return [skip.new_empty(skip.shape) for skip in skips]


def _sizes(skips: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Channels, pixels and widths of the maps."""
    return tuple(zip(*((c, h * w, w) for _, c, h, w in (skip.shape for skip in skips)), strict=True))


def _num_tiles(skips: Sequence[Tensor]) -> int:
    """Tiles of the largest map."""
    return max(-(-num // _PIXELS) for num in _sizes(skips)[1])


def _grid(skips: Sequence[Tensor]) -> tuple[int, int]:
    """Tiles of all maps, and samples."""
    return sum(-(-num // _PIXELS) for num in _sizes(skips)[1]), len(skips[0])


def _tile() -> dict[str, int]:
    return {"P": _PIXELS, "J": _CHANNELS, "num_warps": 4}


def _gate_tile(channels: int) -> dict[str, int]:
    return {"R": _GATES, "K": min(max(16, 1 << (channels - 1).bit_length()), _MAX_MIXED)}
