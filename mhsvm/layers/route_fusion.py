"""Fusions of the routes of a scan head other than their sum: statistics over the routes, mixed by a 1 x 1 convolution.

Letters are those of `mhsvm.ops`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from mhsvm.layers.s6 import NUM_ROUTES
from mhsvm.registry import Registry

# Outputs of the routes (b, m, k, l, d) -> statistics over the routes, (b, m, l, d) each; the mean comes first.
Statistics = Callable[[Tensor], tuple[Tensor, ...]]

FUSIONS: Registry[Statistics] = Registry("fusion")


@FUSIONS.register("mean_max")
def mean_max(y: Tensor) -> tuple[Tensor, ...]:
    """Mean and maximum."""
    return y.mean(dim=2), y.amax(dim=2)


@FUSIONS.register("statistics")
def statistics(y: Tensor) -> tuple[Tensor, ...]:
    """Mean, maximum, minimum, and unbiased deviation, whose gradient is 0 where all routes are equal."""
    return y.mean(dim=2), y.amax(dim=2), y.amin(dim=2), y.std(dim=2, correction=1)


class RouteFusion(nn.Module):
    """A 1 x 1 convolution of statistics over the routes of each head, which begins as the sum of the routes.

    Args:
        heads: Number of scan heads m. Each has weights of its own.
        channels: Channels d of a head.
        kind: "mean_max" or "statistics" (mean, maximum, minimum, deviation), or a registered one.
    Raises:
        ValueError: The kind is unknown.
    Source: the ablations of Ji 2024, arXiv 2406.05992; the initial values are ours.
    """

    def __init__(self, heads: int, channels: int, *, kind: str) -> None:
        super().__init__()
        self.kind = kind
        count = len(FUSIONS[kind](torch.zeros(1, 1, NUM_ROUTES, 1, 1)))
        self.conv = nn.Conv1d(heads * count * channels, heads * channels, 1, groups=heads, bias=False)
        with torch.no_grad():
            self.conv.weight.zero_()
            of_mean = self.conv.weight.view(heads, channels, count, channels)[:, :, 0]
            of_mean.copy_(NUM_ROUTES * torch.eye(channels).expand_as(of_mean))

    def forward(self, y: Tensor) -> Tensor:
        """Route outputs (b, m, k, l, d) -> (b, m, l, d)."""
        found = torch.stack(FUSIONS[self.kind](y), dim=2)  # (b, m, s, l, d)
        m, d = y.shape[1], y.shape[4]
        fused = self.conv(found.mT.flatten(1, 3))  # (b, m*d, l)
        return fused.unflatten(1, (m, d)).mT

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}"
