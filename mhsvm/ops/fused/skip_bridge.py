"""The bridge of UltraLight VM-UNet: attention over space, then over the channels of all skip connections."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mhsvm.ops.fused import skip_bridge_launch as triton_bridge
from mhsvm.ops.fusion import runs_triton


def skip_bridge(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> list[Tensor]:
    """Let the skip connections of a U-shaped network weigh each other.

    For each map t: s = sigmoid(conv(mean, maximum over channels)), a = s * t, t' = a + t, and out = gate * t' + a. The
    gates of all maps come from the averages of the channels of all t', side by side: from their convolution with
    `mix_weight`, a linear layer and a sigmoid.

    On a GPU these are a few Triton kernels, also under torch.compile, unless the environment variable MHSVM_BACKEND
    names another backend; elsewhere they are torch's operations. What lies between is float32 there, also under
    autocast, where torch's layers are 16-bit.

    Args:
        skips: One map (b, c_i, h_i, w_i) a skip connection, any float type; c below is the sum of the c_i.
        spatial_weight, spatial_bias: (1, 2, 7, 7) and (1), of the convolution over space, whose dilation is 3; what
            lies outside of a map is 0.
        mix_weight: (1, 1, 3), of the convolution over channels.
        gate_weights, gate_biases: (c_i, c) and (c_i) a skip connection.
    Returns:
        Maps of the same shapes and types. Of equal maxima the first channel has the gradient.
    Raises:
        ValueError: Shapes do not belong together.
    Source: Ruan et al. 2022, arXiv 2211.01784; as used in Wu et al. 2024, arXiv 2403.20035.
    """
    _check(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases)
    same_type = all(skip.dtype == skips[0].dtype for skip in skips)
    bridge = triton_bridge.skip_bridge if same_type and runs_triton(skips[0]) else composed_skip_bridge
    return bridge(skips, spatial_weight, spatial_bias, mix_weight, gate_weights, gate_biases)


def composed_skip_bridge(
    skips: Sequence[Tensor],
    spatial_weight: Tensor,
    spatial_bias: Tensor,
    mix_weight: Tensor,
    gate_weights: Sequence[Tensor],
    gate_biases: Sequence[Tensor],
) -> list[Tensor]:
    """`skip_bridge` by torch's operations: the reference of the fused one."""
    attended = [_spatial_gate(skip, spatial_weight, spatial_bias) * skip for skip in skips]
    summed = [a + skip for a, skip in zip(attended, skips, strict=True)]
    averages = torch.cat([t.mean(dim=(2, 3)) for t in summed], dim=1)
    mixed = F.conv1d(averages.unsqueeze(1), mix_weight, padding=1).squeeze(1)  # (b, c)
    # The layers of all skip connections as one product.
    gates = torch.sigmoid(F.linear(mixed, torch.cat(list(gate_weights)), torch.cat(list(gate_biases))))
    gates = gates[..., None, None].split([t.shape[1] for t in summed], dim=1)
    return [gate * t + a for gate, t, a in zip(gates, summed, attended, strict=True)]


def _spatial_gate(skip: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    # not amax: its gradient asks which values equal the greatest: where a compiler has rounded one side, none do
    greatest = skip.max(dim=1, keepdim=True).values
    statistics = torch.cat([skip.mean(dim=1, keepdim=True), greatest], dim=1)
    padding = triton_bridge.TAPS // 2 * triton_bridge.DILATION
    return torch.sigmoid(F.conv2d(statistics, weight, bias, padding=padding, dilation=triton_bridge.DILATION))


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
    taps = triton_bridge.TAPS
    expected = (1, 2, taps, taps), (1,), (1, 1, 3)
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
