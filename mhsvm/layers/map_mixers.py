"""Mixers of maps: their sequences are maps, row by row, of a size that the caller gives.

Shape letters: b sequences, l = h*w cells, v width.
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from mhsvm.layers.gated_scan import GatedScan
from mhsvm.layers.mixers import register_mixer
from mhsvm.layers.multi_head_scan import MultiHeadScan
from mhsvm.layers.ss2d import SS2D


@register_mixer("ss2d")
class SS2DMixer(nn.Module):
    """The residual branch of VM-UNet's blocks: four raster routes, with gate and linear layers.

    Args:
        width: Features v.
        d_state: State size of the scan.
        expand: Inner width as a multiple of v.
        backend: Backend of all layers, see `mhsvm.ops.selective_scan`.
    Source: Liu et al. 2024, arXiv 2401.10166.
    """

    takes_size = True

    def __init__(self, width: int, *, d_state: int = 16, expand: int = 2, backend: str = "auto") -> None:
        super().__init__()
        inner = expand * width
        scan = SS2D(inner, d_state=d_state, dt_rank=math.ceil(width / 16), backend=backend)
        self.block = GatedScan(width, scan=scan, inner_channels=inner, out_proj=True, backend=backend)

    def forward(self, x: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Maps (b, l, v) of `size` (h, w) -> (b, l, v)."""
        return self.block(x.unflatten(1, size)).flatten(1, 2)


@register_mixer("mhs")
class MultiHeadScanMixer(nn.Module):
    """The residual branch of MHS-VM's blocks: several scan heads with Scan Route Attention, and a gate.

    Args:
        width: Features v, at least one for each head.
        patterns, gate, gate_threshold, gate_learnable, gate_power, project: See `MultiHeadScan`. The threshold is 0 by
            default: 0.5 closes all gates at small initial weights, and closed gates do not learn.
        d_state: State size of the scan.
        backend: Backend of all layers, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: See `MultiHeadScan`.
    Source: Ji 2024, arXiv 2406.05992.
    """

    takes_size = True

    def __init__(
        self,
        width: int,
        *,
        patterns: Sequence[str] = ("C", "X", "S", "Z"),
        gate: str = "relu",
        gate_threshold: float | None = 0.0,
        gate_learnable: bool = False,
        gate_power: float = 2.0,
        project: bool = True,
        d_state: int = 16,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        scan = MultiHeadScan(
            width,
            patterns=patterns,
            gate=gate,
            gate_threshold=gate_threshold,
            gate_learnable=gate_learnable,
            gate_power=gate_power,
            project=project,
            d_state=d_state,
            backend=backend,
        )
        self.block = GatedScan(width, scan=scan, inner_channels=width, out_proj=False, backend=backend)

    def forward(self, x: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Maps (b, l, v) of `size` (h, w) -> (b, l, v)."""
        return self.block(x.unflatten(1, size)).flatten(1, 2)


@register_mixer("conv")
class ConvMixer(nn.Module):
    """A depthwise convolution with a bias and nothing else: the baseline of the scans.

    Args:
        width: Features v.
        kernel_size: Height and width of the filters, odd.
    Raises:
        ValueError: The kernel is even.
    """

    takes_size = True

    def __init__(self, width: int, *, kernel_size: int = 3) -> None:
        super().__init__()
        if kernel_size < 1 or kernel_size % 2 == 0:
            raise ValueError(f"kernel_size of the mixer conv is odd, which keeps the size; received {kernel_size}")
        self.conv = nn.Conv2d(width, width, kernel_size, padding=kernel_size // 2, groups=width)

    def forward(self, x: Tensor, *, size: tuple[int, int]) -> Tensor:
        """Maps (b, l, v) of `size` (h, w) -> (b, l, v)."""
        return self.conv(x.unflatten(1, size).permute(0, 3, 1, 2)).flatten(2).mT
