"""The bridge of UltraLight VM-UNet: attention over space, then over the channels of all skip connections."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.dispatch import Operation
from mhsvm.ops.fused.skip_bridge_launch import DILATION, TAPS, launch_skip_bridge
from mhsvm.ops.sizes import refuse_empty
from mhsvm.ops.triton_support import unsupported_by_triton


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
    *,
    statistics: Callable[[Tensor], Tensor] | None = None,
) -> list[Tensor]:
    """`skip_bridge` by torch's operations. `statistics` is another form of `_spatial_statistics`."""

    def spatial(statistics: Tensor) -> Tensor:
        return F.conv2d(statistics, spatial_weight, spatial_bias, padding=TAPS // 2 * DILATION, dilation=DILATION)

    def mix(averages: Tensor) -> Tensor:
        return F.conv1d(averages, mix_weight, padding=1)

    def gate(mixed: Tensor) -> Tensor:
        # The layers of all skip connections as one product.
        return F.linear(mixed, torch.cat(list(gate_weights)), torch.cat(list(gate_biases)))

    return bridge_by_layers(skips, spatial, mix, gate, statistics=statistics or _spatial_statistics)


Layer = Callable[[Tensor], Tensor]


def _spatial_statistics(skip: Tensor) -> Tensor:
    # Not amax: its gradient compares values with the maximum; if a compiler rounds one of them, none are equal.
    greatest = skip.max(dim=1, keepdim=True).values
    statistics = torch.cat([skip.mean(dim=1, keepdim=True), greatest], dim=1)
    # oneDNN computes the gradients of the convolution in a fifth of the time
    return statistics.contiguous(memory_format=torch.channels_last) if skip.device.type == "cpu" else statistics


def _portable_statistics(skip: Tensor) -> Tensor:
    """`_spatial_statistics` without the indices of the maxima."""
    return torch.cat([skip.mean(dim=1, keepdim=True), skip.amax(dim=1, keepdim=True)], dim=1)


def bridge_by_layers(
    skips: Sequence[Tensor],
    spatial: Layer,
    mix: Layer,
    gate: Layer,
    *,
    statistics: Callable[[Tensor], Tensor] = _spatial_statistics,
) -> list[Tensor]:
    """`skip_bridge` with given layers.

    Args:
        skips: As in `skip_bridge`.
        spatial: Mean and maximum over channels (b, 2, h, w) -> (b, 1, h, w), before the sigmoid.
        mix: Averages of all channels (b, 1, c) -> (b, 1, c).
        gate: Mixed averages (b, c) -> the gates of all channels (b, c), before the sigmoid.
        statistics: Map (b, c, h, w) -> its mean and maximum over channels, (b, 2, h, w).
    """
    attended = [torch.sigmoid(spatial(statistics(skip))) * skip for skip in skips]
    summed = [a + skip for a, skip in zip(attended, skips, strict=True)]
    averages = torch.cat([t.mean(dim=(2, 3)) for t in summed], dim=1)
    gates = torch.sigmoid(gate(mix(averages.unsqueeze(1)).squeeze(1)))
    split = gates[..., None, None].split([t.shape[1] for t in summed], dim=1)
    return [gate * t + a for gate, t, a in zip(split, summed, attended, strict=True)]


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
    return launch_skip_bridge(list(skips), spatial_weight, spatial_bias, mix_weight, *layers)[: len(skips)]


def _unsupported_by_triton(skips: Sequence[Tensor], *arguments: object, **options: object) -> str | None:
    if any(skip.dtype != skips[0].dtype for skip in skips):
        return f"its kernels take maps of one type, and these are {', '.join(str(skip.dtype) for skip in skips)}"
    return unsupported_by_triton(skips[0])


SKIP_BRIDGE = Operation("skip_bridge", skip_bridge_reference)
SKIP_BRIDGE.register("triton", triton_skip_bridge, unsupported_reason=_unsupported_by_triton)
SKIP_BRIDGE.register("portable", partial(skip_bridge_reference, statistics=_portable_statistics))


def _check(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> None:
    if not skips or any(skip.ndim != 4 or skip.shape[0] != skips[0].shape[0] for skip in skips):
        raise ValueError(
            f"skips are maps (b, c_i, h_i, w_i) of the same batch; received {[tuple(skip.shape) for skip in skips]}"
        )
    for skip in skips:
        refuse_empty("a map of skips", skip, "b, c_i, h_i, w_i")
    expected = (1, 2, TAPS, TAPS), (1,), (1, 1, 3)
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
