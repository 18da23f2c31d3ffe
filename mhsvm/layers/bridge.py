"""The bridge of UltraLight VM-UNet: attention over space, then over the channels of all skip connections."""

from collections.abc import Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# How a linear layer is stored and initialised: as such, or as a convolution of width 1.
SPLIT_ATTENTIONS = {"fc": nn.Linear, "conv": partial(nn.Conv1d, kernel_size=1)}


class SkipBridge(nn.Module):
    """Let the skip connections of a U-shaped network weigh each other.

    For each t: a = sigmoid(conv(mean, max over channels)) * t, t' = a + t; then out = gate * t' + a, where the
    gates of all t come from the channel averages of all t'.

    Args:
        channels: Channels of each skip connection.
        split_att: "fc" or "conv", the layer that makes the gates of one skip connection.
    Raises:
        ValueError: `split_att` is unknown.
    Source: Ruan et al. 2022, arXiv 2211.01784; as used in Wu et al. 2024, arXiv 2403.20035.
    """

    def __init__(self, channels: Sequence[int], *, split_att: str = "fc") -> None:
        super().__init__()
        if split_att not in SPLIT_ATTENTIONS:
            raise ValueError(f"split_att is one of {', '.join(SPLIT_ATTENTIONS)}; received {split_att!r}")
        self.spatial = nn.Conv2d(2, 1, kernel_size=7, padding=9, dilation=3)
        self.mix = nn.Conv1d(1, 1, kernel_size=3, padding=1, bias=False)
        layer = SPLIT_ATTENTIONS[split_att]
        self.gates = nn.ModuleList(layer(sum(channels), width) for width in channels)

    def forward(self, skips: Sequence[Tensor]) -> list[Tensor]:
        """One map (b, c_i, h_i, w_i) a skip connection -> the same shapes."""
        attended = [self.spatial_gate(skip) * skip for skip in skips]
        summed = [a + skip for a, skip in zip(attended, skips, strict=True)]
        averages = torch.cat([t.mean(dim=(2, 3)) for t in summed], dim=1)
        mixed = self.mix(averages.unsqueeze(1)).squeeze(1)  # (b, sum of channels)
        gates = self.channel_gates(mixed)[..., None, None].split([t.shape[1] for t in summed], dim=1)
        return [gate * t + a for gate, t, a in zip(gates, summed, attended, strict=True)]

    def channel_gates(self, mixed: Tensor) -> Tensor:
        """Those of all skip connections side by side, (b, sum of channels): the layers as one product."""
        weight = torch.cat([gate.weight.flatten(1) for gate in self.gates])
        return torch.sigmoid(F.linear(mixed, weight, torch.cat([gate.bias for gate in self.gates])))

    def spatial_gate(self, skip: Tensor) -> Tensor:
        # not amax: its gradient asks which values equal the greatest: where a compiler has rounded one side, none do
        greatest = skip.max(dim=1, keepdim=True).values
        statistics = torch.cat([skip.mean(dim=1, keepdim=True), greatest], dim=1)
        return torch.sigmoid(self.spatial(statistics))
