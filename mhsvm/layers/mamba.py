"""The Mamba block.

Shapes: b batch, l length, v width, e = expand * v inner width, n state size, r rank of the step size.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers.s6 import initial_state_decay, initial_step_bias
from mhsvm.layers.state_matrix import state_matrix
from mhsvm.ops import selective_scan
from mhsvm.ops.fused.causal_conv1d import causal_conv1d


class Mamba(nn.Module):
    """Mamba block on sequences; parameters and initial values are those of the package mamba_ssm.

    Args:
        width: Features v of a sequence.
        d_state: State size n.
        d_conv: Width of the causal convolution.
        expand: Inner width as a multiple of v.
        backend: Of the scan, see `mhsvm.ops.selective_scan`.
    Source: Gu & Dao 2023, arXiv 2312.00752, section 3.4.
    """

    def __init__(
        self, width: int, *, d_state: int = 16, d_conv: int = 4, expand: int = 2, backend: str = "auto"
    ) -> None:
        super().__init__()
        self.backend = backend
        self.d_state = d_state
        self.dt_rank = math.ceil(width / 16)
        e = expand * width
        self.in_proj = nn.Linear(width, 2 * e, bias=False)
        self.conv1d = nn.Conv1d(e, e, d_conv, groups=e, padding=d_conv - 1)
        self.x_proj = nn.Linear(e, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, e)
        self.A_log = nn.Parameter(initial_state_decay(e, d_state))
        self.D = nn.Parameter(torch.ones(e))
        self.out_proj = nn.Linear(e, width, bias=False)
        nn.init.uniform_(self.dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
        with torch.no_grad():
            self.dt_proj.bias.copy_(initial_step_bias(e))

    def forward(self, x: Tensor) -> Tensor:
        """Sequences (b, l, v) -> (b, l, v)."""
        u, z = (half.mT for half in self.in_proj(x).chunk(2, dim=-1))  # (b, e, l)
        u = causal_conv1d(u, self.conv1d.weight.squeeze(1), self.conv1d.bias, backend=self.backend)
        # One product for all: the weight of the step size is that of both its projections.
        step, others = self.x_proj.weight.split((self.dt_rank, 2 * self.d_state))
        weight = torch.cat((self.dt_proj.weight @ step, others))
        delta, B, C = F.linear(u.transpose(1, 2), weight).split((len(self.D), self.d_state, self.d_state), dim=-1)
        y = selective_scan(
            u,
            delta.transpose(1, 2),
            state_matrix(self.A_log),
            B.transpose(1, 2),
            C.transpose(1, 2),
            self.D,
            z=z,
            delta_bias=self.dt_proj.bias,
            delta_softplus=True,
            backend=self.backend,
        )
        return self.out_proj(y.transpose(1, 2))
