"""The gated branch around a scan of a map: the residual branch of a visual state-space block."""

import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers.layer_norm import LayerNorm
from mhsvm.layers.plain import is_plain
from mhsvm.ops.fused.conv2d_silu import conv2d_silu


class GatedScan(nn.Module):
    """LayerNorm(scan(SiLU(conv(a)))) * SiLU(q) with a, q = halves of a linear layer; then optionally a linear layer.

    Args:
        channels: Channels c of the map.
        scan: Any module (b, e, h, w) -> (b, e, h, w).
        inner_channels: Channels e inside.
        out_proj: End with a linear layer e -> c; without it e must be c.
        silu_branch: Multiply by SiLU(q); without it the first linear layer makes a alone.
        backend: For the convolution and the norm, as in `mhsvm.ops.selective_scan`.
    Source: Liu et al. 2024, arXiv 2401.10166; without the last layer: arXiv 2406.05992.
    """

    def __init__(
        self,
        channels: int,
        *,
        scan: nn.Module,
        inner_channels: int,
        out_proj: bool,
        silu_branch: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.backend = backend
        e = inner_channels
        self.silu_branch = silu_branch
        self.in_proj = nn.Linear(channels, 2 * e if silu_branch else e, bias=False)
        self.conv = nn.Conv2d(e, e, kernel_size=3, padding=1, groups=e)
        self.scan = scan
        self.norm = LayerNorm(e, autocast_output=out_proj, backend=backend)
        self.out_proj = nn.Linear(e, channels, bias=False) if out_proj else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map, channels last, (b, h, w, c) -> (b, h, w, c)."""
        a, q = self._project(x)
        a = self._convolve(a.permute(0, 3, 1, 2))
        return self.out_proj(self.norm(self.scan(a).permute(0, 2, 3, 1), gate=q))

    def _project(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        """The halves of the linear layer; without the SiLU branch all of it, and None."""
        if not self.silu_branch:
            return self.in_proj(x), None
        if not is_plain(self.in_proj, bias=False):
            a, q = self.in_proj(x).chunk(2, dim=-1)
            return a, q
        # Two products give two contiguous maps; halves of one would be copied for the convolution.
        first, second = self.in_proj.weight.chunk(2)
        return F.linear(x, first), F.linear(x, second)

    def _convolve(self, a: Tensor) -> Tensor:
        """SiLU of the convolution of a map (b, e, h, w)."""
        if not is_plain(self.conv):
            return F.silu(self.conv(a))
        assert self.conv.bias is not None
        return conv2d_silu(a, self.conv.weight, self.conv.bias, backend=self.backend)
