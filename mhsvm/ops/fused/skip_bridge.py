"""The bridge of UltraLight VM-UNet: attention over space, then over the channels of all skip connections.

The kernels' intermediate results concatenate the maps of all skip connections along cells or along channels (c).
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton

# The convolution over space.
_TAPS, _DILATION = 7, 3
# Cells and channels of a tile.
_CELLS, _CHANNELS = 256, 8
# Gates of a program, and the most channels that it reads at once.
_GATES, _MAX_MIXED = 16, 128
# Tiles, and samples, whose sums are added at once.
_SUMS, _SAMPLES = 32, 16


def skip_bridge(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
    *,
    backend: str = "auto",
) -> list[Tensor]:
    """Weight each skip connection of a U-shaped network by attention over all of them.

    For each map t: s = sigmoid(conv(mean, maximum over channels)), a = s * t, t' = a + t, and out = gate * t' + a. The
    gates of all maps come from the averages of the channels of all t', concatenated: from their convolution with
    `mix_weight`, a linear layer and a sigmoid.

    The backend "triton" computes it in a few kernels, also under torch.compile. Its intermediate results are float32,
    even under autocast, where those of torch's layers are 16-bit.

    Args:
        skips: A map (b, c_i, h_i, w_i) for each skip connection, any float type; c below is the sum of the c_i.
        spatial_weight, spatial_bias: (1, 2, 7, 7) and (1), of the convolution over space, whose dilation is 3; cells
            outside a map are 0.
        mix_weight: (1, 1, 3), of the convolution over channels.
        gate_weights, gate_biases: (c_i, c) and (c_i) for each skip connection.
        backend: As in `mhsvm.ops.selective_scan`.
    Returns:
        Maps of the same shapes and types. Among equal channels, the first gets the gradient of the maximum.
    Raises:
        ValueError: The shapes do not fit together, or `backend` is unknown or cannot run here.
    Source: Ruan et al. 2022, arXiv 2211.01784; as used in Wu et al. 2024, arXiv 2403.20035.
    """
    _check(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases)
    return SKIP_BRIDGE(backend, skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases)


def skip_bridge_reference(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> list[Tensor]:
    """`skip_bridge` by torch's operations."""

    def spatial(statistics: Tensor) -> Tensor:
        return F.conv2d(statistics, spatial_weight, spatial_bias, padding=_TAPS // 2 * _DILATION, dilation=_DILATION)

    def mix(averages: Tensor) -> Tensor:
        return F.conv1d(averages, mix_weight, padding=1)

    def gate(mixed: Tensor) -> Tensor:
        # The layers of all skip connections as one product.
        return F.linear(mixed, torch.cat(list(gate_weights)), torch.cat(list(gate_biases)))

    return bridge_by_layers(skips, spatial, mix, gate)


Layer = Callable[[Tensor], Tensor]


def bridge_by_layers(skips: Sequence[Tensor], spatial: Layer, mix: Layer, gate: Layer) -> list[Tensor]:
    """`skip_bridge` with given layers.

    Args:
        skips: As in `skip_bridge`.
        spatial: Mean and maximum over channels (b, 2, h, w) -> (b, 1, h, w), before the sigmoid.
        mix: Averages of all channels (b, 1, c) -> (b, 1, c).
        gate: Mixed averages (b, c) -> the gates of all channels (b, c), before the sigmoid.
    """
    attended = [torch.sigmoid(spatial(_spatial_statistics(skip))) * skip for skip in skips]
    summed = [a + skip for a, skip in zip(attended, skips, strict=True)]
    averages = torch.cat([t.mean(dim=(2, 3)) for t in summed], dim=1)
    gates = torch.sigmoid(gate(mix(averages.unsqueeze(1)).squeeze(1)))
    split = gates[..., None, None].split([t.shape[1] for t in summed], dim=1)
    return [gate * t + a for gate, t, a in zip(split, summed, attended, strict=True)]


def _spatial_statistics(skip: Tensor) -> Tensor:
    # Not amax: its gradient compares values with the maximum; if a compiler rounds one of them, none are equal.
    greatest = skip.max(dim=1, keepdim=True).values
    return torch.cat([skip.mean(dim=1, keepdim=True), greatest], dim=1)


def triton_skip_bridge(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> list[Tensor]:
    """`skip_bridge` of maps of one type by kernels; its outputs are contiguous."""
    layers = ([x.float() for x in parameters] for parameters in (gate_weights, gate_biases))
    return _skip_bridge(list(skips), spatial_weight, spatial_bias, mix_weight, *layers)[: len(skips)]


def _unsupported_by_triton(skips: Sequence[Tensor], *arguments: object, **options: object) -> str | None:
    if any(skip.dtype != skips[0].dtype for skip in skips):
        return f"its kernels take maps of one type, and these are {', '.join(str(skip.dtype) for skip in skips)}"
    return unsupported_by_triton(skips[0])


SKIP_BRIDGE = Operation("skip_bridge", skip_bridge_reference)
SKIP_BRIDGE.register("triton", triton_skip_bridge, unsupported_reason=_unsupported_by_triton)


def _check(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> None:
    if not skips or any(skip.ndim != 4 or len(skip) != len(skips[0]) for skip in skips):
        raise ValueError(
            f"skips are maps (b, c_i, h_i, w_i) of the same batch; received {[tuple(skip.shape) for skip in skips]}"
        )
    for skip in skips:
        refuse_empty("a map of skips", skip, "b, c_i, h_i, w_i")
    expected = (1, 2, _TAPS, _TAPS), (1,), (1, 1, 3)
    received = tuple(tuple(x.shape) for x in (spatial_weight, spatial_bias, mix_weight))
    if received != expected:
        raise ValueError(
            f"spatial_weight, spatial_bias and mix_weight are {expected[0]}, {expected[1]} and {expected[2]}; received "
            f"{received[0]}, {received[1]} and {received[2]}"
        )
    channels = [skip.shape[1] for skip in skips]
    weights, biases = ([tuple(x.shape) for x in tensors] for tensors in (gate_weights, gate_biases))
    if weights != [(c, sum(channels)) for c in channels] or biases != [(c,) for c in channels]:
        raise ValueError(
            f"maps of {channels} channels have gates with weights (c_i, {sum(channels)}) and biases (c_i) each; "
            f"received {weights} and {biases}"
        )


@torch.library.custom_op(
    "mhsvm::triton_skip_bridge",
    mutates_args=(),
    schema="(Tensor[] skips, Tensor spatial_weight, Tensor spatial_bias, Tensor mix_weight, Tensor[] gate_weights, "
    "Tensor[] gate_biases) -> Tensor[]",
)
def _skip_bridge(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases):
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
            num_channels=c, num_tiles=num_tiles, TAPS=_TAPS, DILATION=_DILATION, **_tile(),
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
@_skip_bridge.register_fake
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
    row = 1 << _TAPS.bit_length()
    parts = attention.new_empty((grid[0], 2 * _TAPS, row))
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
            channels=channels, cells=cells, widths=widths, num_cells=num_cells, num_channels=c, TAPS=_TAPS,
            DILATION=_DILATION, **_tile(),
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel_taps[(grid[0], 2 * _TAPS)](
            p_grad_z=grad_z, p_statistics=statistics, p_parts=parts, cells=cells, widths=widths, num_cells=num_cells,
            batch=b, L=_CELLS, F=row, TAPS=_TAPS, DILATION=_DILATION, num_warps=4,
        )  # fmt: skip
        kernels.skip_bridge_bwd_kernel_weights[(blocks + 2 * _TAPS + 3,)](
            p_parts=parts, p_grad_v=grad_v, p_grad_mixed=grad_mixed, p_averages=averages, p_mix=mix_weight,
            p_grad_shared=grad_shared, p_grad_weight=grad_weight, p_grad_bias=grad_bias, num_parts=grid[0], batch=b,
            num_channels=c, **_gate_tile(c), B=_SAMPLES, S=_SUMS, F=row, TAPS=_TAPS, num_warps=4, num_stages=1,
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


_skip_bridge.register_autograd(_differentiate, setup_context=_save)


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
