"""Launch the Triton kernels of the bridge, and differentiate them.

Intermediate results concatenate the maps of all skip connections along cells or along channels (c).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

# The convolution over space.
TAPS, DILATION = 7, 3
# Cells and channels of a tile.
_CELLS, _CHANNELS = 256, 8
# Gates of a program, and the most channels that it reads at once.
_GATES, _MAX_MIXED = 16, 128
# Tiles, and samples, whose sums are added at once.
_SUMS, _SAMPLES = 32, 16


@torch.library.custom_op(
    "mhsvm::triton_skip_bridge",
    mutates_args=(),
    schema="(Tensor[] skips, Tensor spatial_weight, Tensor spatial_bias, Tensor mix_weight, Tensor[] gate_weights, "
    "Tensor[] gate_biases) -> Tensor[]",
)
def launch_skip_bridge(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases):
    """`skip_bridge` of contiguous or other maps of one type; after its outputs, the tensors that backward needs."""
    from mhsvm.ops.fused import skip_bridge_kernels as kernels

    results = _empty_results(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases)
    outs, (attention, averages, gates, statistics, greatest) = results[: len(skips)], results[len(skips) :]
    skips, gate_weights, gate_biases = (
        tuple(x.contiguous() for x in tensors) for tensors in (skips, gate_weights, gate_biases)
    )
    channels, cells, widths = _sizes(skips)
    grid, num_tiles = _grid(skips), _num_tiles(skips)
    b, num_cells, c = len(skips[0]), sum(cells), sum(channels)
    sums = attention.new_empty((b, num_tiles, c))
    with torch.cuda.device_of(attention):
        kernels.skip_bridge_fwd_kernel_statistics[grid](
            p_skips=skips, p_statistics=statistics, p_greatest=greatest, channels=channels, cells=cells,
            num_cells=num_cells, **_tile(),
        )  # fmt: skip
        kernels.skip_bridge_fwd_kernel_attention[grid](
            p_skips=skips, p_statistics=statistics, p_spatial=spatial_weight.contiguous(), p_bias=spatial_bias,
            p_attention=attention, p_sums=sums, channels=channels, cells=cells, widths=widths, num_cells=num_cells,
            num_channels=c, num_tiles=num_tiles, TAPS=TAPS, DILATION=DILATION, **_tile(),
        )  # fmt: skip
        kernels.skip_bridge_fwd_kernel_gates[(-(-c // _GATES), b)](
            p_sums=sums, p_mix=mix_weight.contiguous(), p_weights=gate_weights, p_biases=gate_biases,
            p_averages=averages, p_gates=gates, channels=channels, cells=cells, num_channels=c, num_tiles=num_tiles,
            L=_CELLS, **_gate_tile(c), S=_SUMS, num_warps=8,
        )  # fmt: skip
        kernels.skip_bridge_fwd_kernel[grid](
            p_skips=skips, p_attention=attention, p_gates=gates, p_outs=tuple(outs), channels=channels, cells=cells,
            num_cells=num_cells, num_channels=c, **_tile(),
        )  # fmt: skip
    return results


# The maps, then tensors for backward: s, averages, gates, mean and maximum over channels, channel of the maximum.
@launch_skip_bridge.register_fake
def _empty_results(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases):
    channels, cells, _ = _sizes(skips)
    b, num_cells, c = len(skips[0]), sum(cells), sum(channels)
    shapes = (b, num_cells), (b, c), (b, c), (b, 2, num_cells)
    kept = [skips[0].new_empty(shape, dtype=torch.float32) for shape in shapes]
    return [*_empty_maps(skips), *kept, skips[0].new_empty((b, num_cells), dtype=torch.int32)]


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
    attention, averages, gates, statistics, greatest = kept
    grads, skips, gate_weights = (tuple(x.contiguous() for x in tensors) for tensors in (grads, skips, gate_weights))
    spatial_weight, mix_weight = spatial_weight.contiguous(), mix_weight.contiguous()
    channels, cells, widths = _sizes(skips)
    grid, num_tiles = _grid(skips), _num_tiles(skips)
    b, num_cells, c = len(skips[0]), sum(cells), sum(channels)
    sums, grad_z = attention.new_empty((b, num_tiles, c)), torch.empty_like(attention)
    grad_v, grad_mixed = torch.empty_like(gates), torch.empty_like(gates)
    # The taps of a row, and the bias.
    row = 1 << TAPS.bit_length()
    parts = attention.new_empty((grid[0], 2 * TAPS, row))
    blocks = -(-c // _GATES)
    with torch.cuda.device_of(attention):
        kernels.skip_bridge_bwd_kernel_sums[grid](
            p_grads=grads, p_skips=skips, p_attention=attention, p_sums=sums, channels=channels, cells=cells,
            num_cells=num_cells, num_channels=c, num_tiles=num_tiles, **_tile(),
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel_gates[(blocks, b)](
            p_sums=sums, p_gates=gates, p_weights=gate_weights, p_grad_v=grad_v, p_grad_mixed=grad_mixed,
            channels=channels, cells=cells, num_channels=c, num_tiles=num_tiles, L=_CELLS, **_gate_tile(c), S=_SUMS,
            num_warps=8,
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel_attention[grid](
            p_grads=grads, p_skips=skips, p_attention=attention, p_gates=gates, p_grad_mixed=grad_mixed,
            p_mix=mix_weight, p_grad_z=grad_z, channels=channels, cells=cells, num_cells=num_cells, num_channels=c,
            **_tile(),
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel[grid](
            p_grads=grads, p_attention=attention, p_greatest=greatest, p_gates=gates, p_grad_mixed=grad_mixed,
            p_mix=mix_weight, p_grad_z=grad_z, p_spatial=spatial_weight, p_grad_skips=tuple(grad_skips),
            channels=channels, cells=cells, widths=widths, num_cells=num_cells, num_channels=c, TAPS=TAPS,
            DILATION=DILATION, **_tile(),
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel_taps[(grid[0], 2 * TAPS)](
            p_grad_z=grad_z, p_statistics=statistics, p_parts=parts, cells=cells, widths=widths, num_cells=num_cells,
            batch=b, L=_CELLS, F=row, TAPS=TAPS, DILATION=DILATION, num_warps=4,
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel_weights[(blocks + 2 * TAPS + 3,)](
            p_parts=parts, p_grad_v=grad_v, p_grad_mixed=grad_mixed, p_averages=averages, p_mix=mix_weight,
            p_grad_shared=grad_shared, p_grad_weight=grad_weight, p_grad_bias=grad_bias, num_parts=grid[0], batch=b,
            num_channels=c, **_gate_tile(c), B=_SAMPLES, S=_SUMS, F=row, TAPS=TAPS, num_warps=4, num_stages=1,
        )  # fmt: skip
    return results


# Gradients of the maps, all gates' weights and biases, and the convolutions: over space, its bias, over channels.
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
    num = ctx.num_maps
    skips, gate_weights, kept = tensors[:num], tensors[num : 2 * num], tensors[2 * num :]
    grads = [torch.zeros_like(x) if grad is None else grad for grad, x in zip(grads[:num], skips, strict=True)]
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


launch_skip_bridge.register_autograd(_differentiate, setup_context=_save)


def _empty_maps(skips: Sequence[Tensor]) -> list[Tensor]:
    return [skip.new_empty(skip.shape) for skip in skips]


def _sizes(skips: Sequence[Tensor]) -> tuple[tuple[int, ...], ...]:
    """Channels, cells and widths of the maps."""
    return tuple(zip(*((c, h * w, w) for _, c, h, w in (skip.shape for skip in skips)), strict=True))


def _num_tiles(skips: Sequence[Tensor]) -> int:
    """Tiles of the largest map."""
    return max(-(-num // _CELLS) for num in _sizes(skips)[1])


def _grid(skips: Sequence[Tensor]) -> tuple[int, int]:
    """Tiles of all maps, and samples."""
    return sum(-(-num // _CELLS) for num in _sizes(skips)[1]), len(skips[0])


def _tile() -> dict[str, int]:
    return {"L": _CELLS, "C": _CHANNELS, "num_warps": 4}


def _gate_tile(channels: int) -> dict[str, int]:
    return {"Q": _GATES, "MIXED": min(max(16, 1 << (channels - 1).bit_length()), _MAX_MIXED)}
