"""The 2-D selective scan of VMamba: four raster routes, summed."""

from torch import Tensor, nn

from mhsvm.layers.s6 import RouteS6


class SS2D(nn.Module):
    """Scan a map along rows and columns, both ways, and sum the four outputs.

    Args:
        channels: Channels of the map.
        d_state: State size of the scan.
        dt_rank: Rank of the projection of delta; by default ceil(channels / 16).
        backend: Backend of the scan, see `mhsvm.ops.selective_scan`.
    Source: Liu et al. 2024, arXiv 2401.10166.
    """

    def __init__(self, channels: int, *, d_state: int = 16, dt_rank: int | None = None, backend: str = "auto") -> None:
        super().__init__()
        self.s6 = RouteS6(channels, patterns=("Z",), d_state=d_state, dt_rank=dt_rank, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, c, h, w) -> (b, c, h, w); fastest on a map in channels-last memory."""
        x = x.permute(0, 2, 3, 1)
        y = self.s6(x).sum(dim=2)  # (b, 1, l, c)
        return y.to(x.dtype).reshape(x.shape).permute(0, 3, 1, 2)
