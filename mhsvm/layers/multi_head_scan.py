"""Multi-head scan: each head scans its own slice of the channels along its own pattern of routes."""

from collections.abc import Sequence

from torch import Tensor, nn

from mhsvm.layers.layer_norm import LayerNorm
from mhsvm.layers.s6 import RouteS6
from mhsvm.layers.scan_route_attention import ScanRouteAttention


class MultiHeadScan(nn.Module):
    """Multi-head scan of a map, with Scan Route Attention.

    Args:
        channels: Channels c of the map; each of the m heads scans d = c // m channels, see `head_divisor`.
        patterns: One scan pattern a head, names from `mhsvm.routes.list_patterns()`; they may repeat.
        gate: Gate of the attention: "relu", "sigmoid", "power", "exp", "none" (the plain sum of the routes), or a
            registered gate.
        gate_threshold: Threshold of the gate, by default 0.5 for "relu", 0 for "sigmoid" and "exp".
        gate_learnable: Make the threshold one learnable scalar a head.
        gate_power: Exponent of the gate "power".
        project: Normalize and mix the channels of the heads at the end; required if m * d is not c.
        head_divisor: Makes d = c // head_divisor, independent of the number of heads; 0 takes m.
        fusion: "sum", "mean_max" or "statistics", or a registered one: see `RouteFusion`. The gate weighs its result.
        d_state: State size of the scan.
        backend: Backend of the scan and the attention, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: More heads than channels, heads that do not divide the channels without `project`, an
            unknown pattern or gate, or a map of another shape.
    Source: Ji 2024, arXiv 2406.05992.
    """

    def __init__(
        self,
        channels: int,
        *,
        patterns: Sequence[str] = ("C", "X", "S", "Z"),
        gate: str = "relu",
        gate_threshold: float | None = None,
        gate_learnable: bool = False,
        gate_power: float = 2.0,
        project: bool = True,
        head_divisor: int = 0,
        fusion: str = "sum",
        d_state: int = 16,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        heads = len(patterns)
        if heads > channels:
            raise ValueError(
                f"every head needs a channel; received {heads} patterns for {channels} channels. "
                f"Name at most {channels} patterns or widen the map"
            )
        if heads and channels % heads and not project and not head_divisor:
            raise ValueError(
                f"without projection the heads must divide the channels; received {heads} patterns for "
                f"{channels} channels. Use project=True or {channels // heads * heads} channels"
            )
        self.channels = channels
        if not 0 <= head_divisor <= channels:
            raise ValueError(f"head_divisor is 0, or 1 to the number of channels, {channels}; received {head_divisor}")
        head_channels = channels // (head_divisor or max(heads, 1))
        width = head_channels * heads
        if heads and width != channels and not project:
            raise ValueError(
                f"without projection the heads have as many channels as the map, {channels}; received {heads} heads of "
                f"{channels} // {head_divisor} = {head_channels}. Use project=True, or head_divisor={heads}"
            )
        # First, so that it reports an empty or unknown pattern.
        self.s6 = RouteS6(head_channels, patterns=patterns, d_state=d_state, backend=backend)
        self.in_proj = nn.Linear(channels, width, bias=False)
        self.attention = ScanRouteAttention(
            heads,
            gate=gate,
            threshold=gate_threshold,
            learnable=gate_learnable,
            power=gate_power,
            fusion=fusion,
            channels=head_channels,
            backend=backend,
        )
        self.norm = LayerNorm(width, autocast_output=True, backend=backend) if project else None
        self.out_proj = nn.Linear(width, channels, bias=False) if project else None

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) -> (b, c, h, w); fastest on a map in channels-last memory."""
        if x.ndim != 4 or x.shape[1] != self.channels:
            raise ValueError(f"a map is (b, {self.channels}, h, w); received {tuple(x.shape)}")
        x = self.in_proj(x.permute(0, 2, 3, 1))  # (b, h, w, m*d)
        z = self.attention(self.s6(x), dtype=x.dtype)  # (b, l, m*d)
        z = z.view(x.shape)
        if self.norm is not None and self.out_proj is not None:
            z = self.out_proj(self.norm(z))
        return z.permute(0, 3, 1, 2)
