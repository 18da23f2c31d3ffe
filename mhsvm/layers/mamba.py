"""The Mamba block.

Letters are those of `mhsvm.ops`; v is the width of the block, and d = expand * v.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers.plain import is_plain
from mhsvm.layers.s6 import initial_delta_bias, initial_state_decay
from mhsvm.layers.state_matrix import state_matrix
from mhsvm.ops.fused.causal_conv1d import causal_conv1d
from mhsvm.ops.scan.selective_scan import sequence_scan


class Mamba(nn.Module):
    """Mamba block on sequences; parameters and initial values are those of the package mamba_ssm.

    Args:
        width: Features v of a sequence.
        d_state: State size n.
        d_conv: Width of the causal convolution.
        expand: Inner width as a multiple of v.
        backend: Backend of the scan, see `mhsvm.ops.selective_scan`.
    Source: Gu & Dao 2023, arXiv 2312.00752, section 3.4.
    """

    def __init__(
        self, width: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.backend = backend
        self.d_state = d_state
        self.dt_rank = math.ceil(width / 16)
        d = expand * width
        self.in_proj = nn.Linear(width, 2 * d, bias=False)
        self.conv1d = nn.Conv1d(d, d, d_conv, groups=d, padding=d_conv - 1)
        self.x_proj = nn.Linear(d, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, d)
        self.A_log = nn.Parameter(initial_state_decay(d, d_state))
        self.D = nn.Parameter(torch.ones(d))
        self.out_proj = nn.Linear(d, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(initial_delta_bias(d))

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (b, l, v) -> (b, l, v)."""
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (b, l, d)
        u = convolve(self.conv1d, u, backend=self.backend)
        delta, B, C, delta_bias = self._project(u)
        y = sequence_scan(
            u,
            delta,
            state_matrix(self.A_log),
            B.unsqueeze(2),
            C.unsqueeze(2),
            self.D,
            z=z,
            delta_bias=delta_bias,
            delta_softplus=True,
            backend=self.backend,
        )
        return self.out_proj(y)

    def _project(self, u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
        """delta (b, l, d), B and C (b, l, n), and the bias that delta still lacks."""
        r, n = self.dt_rank, self.d_state
        if not (is_plain(self.x_proj, bias=False) and is_plain(self.dt_proj)):
            low_rank, B, C = self.x_proj(u).split((r, n, n), dim=-1)
            return self.dt_proj(low_rank), B, C, None
        # One product for delta, B and C: the weight of delta is the product of its two projections.
        reduce, others = self.x_proj.weight.split((r, 2 * n))
        weight = torch.cat((self.dt_proj.weight @ reduce, others))
        delta, B, C = F.linear(u, weight).split((len(self.D), n, n), dim=-1)
        return delta, B, C, self.dt_proj.bias


def convolve(conv1d: nn.Conv1d, u: Tensor, *, backend: str) -> Tensor:
    """SiLU of a causal convolution of sequences (b, l, d); it is padded on both sides."""
    if not is_plain(conv1d):
        return F.silu(conv1d(u.mT)[..., : u.shape[1]]).mT
    assert conv1d.bias is not None
    return causal_conv1d(u.mT, conv1d.weight.squeeze(1), conv1d.bias, backend=backend).mT
