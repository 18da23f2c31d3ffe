"""The Mamba block.

Letters are those of `mhsvm.ops`; v is the width of the block, and d = expand * v.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

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
        assert self.conv1d.bias is not None
        u, z = self.in_proj(x).chunk(2, dim=-1)  # (b, l, d)
        u = causal_conv1d(u.mT, self.conv1d.weight.squeeze(1), self.conv1d.bias, backend=self.backend).mT
        # One product for delta, B and C: the weight of delta is the product of its two projections.
        low_rank, others = self.x_proj.weight.split((self.dt_rank, 2 * self.d_state))
        weight = torch.cat((self.dt_proj.weight @ low_rank, others))
        delta, B, C = F.linear(u, weight).split((len(self.D), self.d_state, self.d_state), dim=-1)
        y = sequence_scan(
            u,
            delta,
            state_matrix(self.A_log),
            B.unsqueeze(2),
            C.unsqueeze(2),
            self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            backend=self.backend,
        )
        return self.out_proj(y)
