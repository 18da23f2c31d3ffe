"""The bridge of UltraLight VM-UNet: attention over space, then over the channels of all skip connections."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from mhsvm.layers.plain import is_plain
from mhsvm.ops.fused.skip_bridge import bridge_by_layers, skip_bridge

# Layers of the gates by name: a linear layer, stored and initialized as such or as a convolution of width 1.
SPLIT_ATTENTIONS: dict[str, Callable[[int, int], nn.Module]] = {
    "fc": nn.Linear,
    "conv": partial(nn.Conv1d, kernel_size=1),
}


class SkipBridge(nn.Module):
    """Attention over the skip connections of a U-shaped network: `mhsvm.ops.fused.skip_bridge` with parameters.

    Args:
        channels: Channels of each skip connection.
        split_att: "fc" or "conv", the layer that computes the gates of one skip connection.
        backend: As in `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: `split_att` is unknown.
    Source: Ruan et al. 2022, arXiv 2211.01784; as used in Wu et al. 2024, arXiv 2403.20035.
    """

    def __init__(self, channels: Sequence[int], *, split_att: str = "fc", backend: str = "auto") -> None:
        super().__init__()
        self.backend = backend
        if split_att not in SPLIT_ATTENTIONS:
            raise ValueError(f"split_att is one of {', '.join(SPLIT_ATTENTIONS)}; received {split_att!r}")
        self.spatial = nn.Conv2d(2, 1, kernel_size=7, padding=9, dilation=3)
        self.mix = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)
        self._gates_convolve = split_att == "conv"
        layer = SPLIT_ATTENTIONS[split_att]
        self.gates = nn.ModuleList(layer(sum(channels), width) for width in channels)

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """Maps (b, c_i, h_i, w_i) of all skip connections -> the same shapes."""
        if not (is_plain(self.spatial) and is_plain(self.mix, bias=False) and all(map(is_plain, self.gates))):
            return bridge_by_layers(skips, self.spatial, self.mix, self._gate)
        weights, biases = [], []
        for gate in self.gates:
            assert isinstance(gate.weight, Tensor)
            assert isinstance(gate.bias, Tensor)
            weights.append(gate.weight.flatten(1))
            biases.append(gate.bias)
        assert self.spatial.bias is not None
        return skip_bridge(
            skips, self.spatial.weight, self.spatial.bias, self.mix.weight, weights, biases, backend=self.backend
        )

    def _gate(self, mixed: Tensor) -> Tensor:
        """Mixed averages (b, c) -> the outputs of all gates' layers, (b, c)."""
        if self._gates_convolve:
            mixed = mixed.unsqueeze(2)
        return torch.cat([gate(mixed) for gate in self.gates], dim=1).flatten(1)
