"""The Mamba-2 block.

Letters are those of `mhsvm.ops`; v is the width of the block, d = expand * v, and m its number of heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers.mamba import convolve
from mhsvm.layers.mixers import register_mixer
from mhsvm.layers.s6 import initial_delta_bias
from mhsvm.layers.state_matrix import state_matrix
from mhsvm.ops.scan.selective_scan import sequence_scan

_EPS = 1e-5


@register_mixer("mamba2")
class Mamba2(nn.Module):
    """Mamba-2 block (SSD) on sequences: one scalar decay, delta and direct path for each head.

    All channels of a head share delta, and all its states the decay, so it is the selective scan with a delta and an A
    that repeat: every backend computes it. B and C are shared by all heads. Parameters and initial values are those of
    `Mamba2` in the package mamba_ssm with one group.

    Args:
        width: Features v of a sequence.
        head_width: Channels of a head, a divisor of d.
        d_state: State size n.
        d_conv: Width of the causal convolution, which takes B and C too.
        expand: Inner width as a multiple of v.
        backend: Backend of the scan, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The heads do not divide the inner width.
    Source: Dao & Gu 2024, arXiv 2405.21060, section 7.
    """

    def __init__(
        self,
        width: int,
        *,
        head_width: int = 4,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        d = expand * width
        if head_width < 1 or d % head_width:
            raise ValueError(
                f"head_width divides the inner width of the mixer, {expand} * {width} = {d}; received {head_width}"
            )
        self.backend = backend
        self.d_state = d_state
        self.head_width = head_width
        heads = d // head_width
        # the gate z, then u, B and C of the scan, then delta of each head
        self.in_proj = nn.Linear(width, 2 * d + 2 * d_state + heads, bias=False)
        convolved = d + 2 * d_state
        self.conv1d = nn.Conv1d(convolved, convolved, d_conv, groups=convolved, padding=d_conv - 1)
        self.dt_bias = nn.Parameter(initial_delta_bias(heads))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm_weight = nn.Parameter(torch.ones(d))
        self.out_proj = nn.Linear(d, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (b, l, v) -> (b, l, v)."""
        d, n, heads = self.out_proj.in_features, self.d_state, len(self.D)
        z, convolved, delta = self.in_proj(x).split((d, d + 2 * n, heads), dim=-1)
        u, B, C = convolve(self.conv1d, convolved, backend=self.backend).split((d, n, n), dim=-1)
        y = sequence_scan(
            u,
            self._of_channels(delta),
            state_matrix(self._of_channels(self.A_log)[:, None].expand(-1, n)),
            B.unsqueeze(2),
            C.unsqueeze(2),
            self._of_channels(self.D),
            delta_bias=self._of_channels(self.dt_bias),
            delta_softplus=True,
            backend=self.backend,
        )
        assert isinstance(y, Tensor)  # it was not asked for the last state
        return self.out_proj(self._normalize(y * F.silu(z)))

    def _of_channels(self, of_heads: Tensor) -> Tensor:
        """Values of heads (..., m) -> of their channels (..., d)."""
        return of_heads.unsqueeze(-1).expand(*of_heads.shape, self.head_width).flatten(-2)

    def _normalize(self, y: Tensor) -> Tensor:
        """RMSNorm over the channels, in float32 or float64."""
        y = y.to(torch.promote_types(y.dtype, torch.float32))
        return y * torch.rsqrt(y.square().mean(dim=-1, keepdim=True) + _EPS) * self.norm_weight
