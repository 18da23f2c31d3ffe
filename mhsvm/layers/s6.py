"""Selective scans along the routes of a map. Each head and route has its own parameters.

Letters are those of `mhsvm.ops`; a map is (h, w) with l = h*w cells.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mhsvm.layers.state_matrix import state_matrix
from mhsvm.ops import route_scan
from mhsvm.ops.traced_constant import traced_constant
from mhsvm.routes import list_patterns, scan_routes

NUM_ROUTES = 4


def initial_delta_bias(*shape: int) -> Tensor:
    """Inverse softplus of values of delta sampled log-uniformly from [1e-3, 1e-1].

    Source: Gu & Dao 2023, arXiv 2312.00752, section 3.6.
    """
    delta = torch.empty(shape).uniform_(math.log(1e-3), math.log(1e-1)).exp()
    return delta + torch.log(-torch.expm1(-delta))


def initial_state_decay(*shape: int) -> Tensor:
    """log(1..n) along the last axis: the logarithm of -A (S4D-real, Gu et al. 2022, arXiv 2206.11893)."""
    return torch.arange(1, shape[-1] + 1, dtype=torch.float32).log().expand(shape).clone()


_Key = tuple[tuple[str, ...], int, int, torch.device]
_STACKED_ROUTES: dict[_Key, tuple[Tensor, Tensor]] = {}
_MAX_STACKED_ROUTES = 64


@traced_constant
def stacked_routes(patterns: tuple[str, ...], h: int, w: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Orders and inverses of the routes of all heads, each int64 (m, k, l), computed once for each size and device."""
    key = (patterns, h, w, device)
    if key in _STACKED_ROUTES:
        return _STACKED_ROUTES[key]
    # The first caller may run in inference mode, whose tensors cannot be saved for a later backward pass.
    with torch.inference_mode(False):
        orders, inverses = zip(*(scan_routes(pattern, h, w) for pattern in patterns), strict=True)
        stacked = torch.stack(orders).to(device), torch.stack(inverses).to(device)
    # The fake tensors of a tracer must not be kept.
    if type(stacked[0]) is Tensor:
        if len(_STACKED_ROUTES) == _MAX_STACKED_ROUTES:
            del _STACKED_ROUTES[next(iter(_STACKED_ROUTES))]
        _STACKED_ROUTES[key] = stacked
    return stacked


class RouteS6(nn.Module):
    """Scan a map along the four routes of each head's pattern (base 0, its reverse, base 1, its reverse).

    The projections of single cells are computed in map order, for all heads and routes at once.

    Args:
        channels: Channels d of one head.
        patterns: One scan pattern a head, names from `mhsvm.routes.list_patterns()`.
        d_state: State size n.
        dt_rank: Rank r of the projection of delta; by default ceil(d / 16).
        backend: Backend of the scan, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: There is no pattern, or an unknown one.
    Source: Gu & Dao 2023, arXiv 2312.00752; the routes: arXiv 2401.10166 and 2406.05992.
    """

    def __init__(
        self,
        channels: int,
        *,
        patterns: Sequence[str],
        d_state: int = 16,
        dt_rank: int | None = None,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.patterns = tuple(patterns)
        unknown = sorted(set(self.patterns) - set(list_patterns()))
        if unknown or not self.patterns:
            raise ValueError(
                "patterns names one scan pattern a head, at least one; "
                f"received {self.patterns!r}, unknown: {', '.join(unknown) or 'none'}. "
                f"Known patterns: {', '.join(list_patterns())}"
            )
        self.backend = backend
        m, k, d, n = len(self.patterns), NUM_ROUTES, channels, d_state
        r = math.ceil(d / 16) if dt_rank is None else dt_rank
        self.x_proj = nn.Parameter(torch.empty(m, k, r + 2 * n, d).uniform_(-(d**-0.5), d**-0.5))
        self.dt_proj = nn.Parameter(torch.empty(m, k, d, r).uniform_(-(r**-0.5), r**-0.5))
        self.dt_bias = nn.Parameter(initial_delta_bias(m, k, d))
        self.A_log = nn.Parameter(initial_state_decay(m, k, d, n))
        self.D = nn.Parameter(torch.ones(m, k, d))

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, h, w, m*d), the channels of a head contiguous -> (b, m, k, l, d).

        The output is float32, or float64 for such a map: never rounded to 16 bits, since a gate may compare routes.
        """
        b, h, w, _ = x.shape
        m, _, d = self.D.shape
        order, inverse = stacked_routes(self.patterns, h, w, x.device)
        return route_scan(
            x.reshape(b, h * w, m, d),
            self.x_proj,
            self.dt_proj,
            self.dt_bias,
            state_matrix(self.A_log),
            self.D,
            order,
            inverse,
            backend=self.backend,
        )
