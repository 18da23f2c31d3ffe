"""The bidirectional Mamba block of Vim.

Letters are those of `mhsvm.ops`; v is the width of the block, and d = expand * v.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers.mamba import convolve
from mhsvm.layers.mixers import register_mixer
from mhsvm.layers.s6 import initial_delta_bias, initial_state_decay
from mhsvm.layers.state_matrix import state_matrix
from mhsvm.ops.scan.selective_scan import sequence_scan


class Direction(nn.Module):
    """The layers of one direction: causal convolution, projections, and the scan's A and D.

    Args:
        d: Channels.
        d_state: State size n.
        d_conv: Width of the causal convolution.
        dt_rank: Rank r of the projection of delta.
        backend: Backend of the convolution.
    """

    def __init__(self, d: int, *, d_state: int, d_conv: int, dt_rank: int, backend: str) -> None:
        super().__init__()
        self.backend = backend
        self.conv1d = nn.Conv1d(d, d, d_conv, groups=d, padding=d_conv - 1)
        self.x_proj = nn.Linear(d, dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(dt_rank, d)
        self.A_log = nn.Parameter(initial_state_decay(d, d_state))
        self.D = nn.Parameter(torch.ones(d))
        nn.init.uniform_(self.dt_proj.weight, -(dt_rank**-0.5), dt_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(initial_delta_bias(d))

    def forward(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Sequences (b, l, d) in the order of the direction -> u and delta (b, l, d), B and C (b, l, n)."""
        u = convolve(self.conv1d, u, backend=self.backend)
        n = self.A_log.shape[1]
        low_rank, B, C = self.x_proj(u).split((self.dt_proj.in_features, n, n), dim=-1)
        return u, self.dt_proj(low_rank), B, C


@register_mixer("bidirectional")
class BidirectionalMamba(nn.Module):
    """Mamba block that scans its sequences forward and backward, and adds the two outputs before the gate.

    The directions share the linear layers at both ends (`in_proj`, with the gate, and `out_proj`). Each has a
    convolution, `x_proj`, `dt_proj`, `A_log` and `D` of its own, in `ahead` and `back`. Both are one scan of 2d
    channels in two groups.

    Args:
        width: Features v of a sequence.
        d_state: State size n.
        d_conv: Width of the causal convolutions.
        expand: Inner width as a multiple of v.
        backend: Backend of the scan, see `mhsvm.ops.selective_scan`.
    Source: Zhu et al. 2024, arXiv 2401.09417, algorithm 1.
    """

    def __init__(
        self, width: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.backend = backend
        self.d_state = d_state
        self.d_conv = d_conv
        self.dt_rank = math.ceil(width / 16)
        d = expand * width
        self.in_proj = nn.Linear(width, 2 * d, bias=False)
        self.ahead = Direction(d, d_state=d_state, d_conv=d_conv, dt_rank=self.dt_rank, backend=backend)
        self.back = Direction(d, d_state=d_state, d_conv=d_conv, dt_rank=self.dt_rank, backend=backend)
        self.out_proj = nn.Linear(d, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (b, l, v) -> (b, l, v)."""
        sequences, z = self.in_proj(x).chunk(2, dim=-1)  # (b, l, d)
        inputs = zip(self.ahead(sequences), self.back(sequences.flip(1)), strict=True)
        u, delta, B, C = (torch.cat(pair, dim=-1) for pair in inputs)
        y = sequence_scan(
            u,
            delta,
            state_matrix(torch.cat((self.ahead.A_log, self.back.A_log))),
            B.unflatten(2, (2, self.d_state)),
            C.unflatten(2, (2, self.d_state)),
            torch.cat((self.ahead.D, self.back.D)),
            delta_softplus=True,
            backend=self.backend,
        )
        assert isinstance(y, Tensor)  # it was not asked for the last state
        forward, backward = y.chunk(2, dim=-1)
        return self.out_proj((forward + backward.flip(1)) * F.silu(z))
