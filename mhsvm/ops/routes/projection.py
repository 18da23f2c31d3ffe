"""The projections of the values of a map to delta, B and C. Letters are those of `mhsvm.ops`."""

import torch
from torch import Tensor


def project(u: Tensor, x_proj: Tensor) -> Tensor:
    """Values (b, l, m, d) and weights (m, k, c, d) -> (b, l, m, k, c): c numbers for each cell and route of a head.

    Under autocast the product is in its 16-bit type.
    """
    if not torch.is_autocast_enabled(u.device.type):
        # Autocast casts both by itself; widening the values first would be two passes over the map.
        dtype = torch.promote_types(u.dtype, x_proj.dtype)
        u, x_proj = u.to(dtype), x_proj.to(dtype)
    return torch.einsum("blmd,mkcd->blmkc", u, x_proj)
