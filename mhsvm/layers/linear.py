"""A linear layer for few and short rows."""

from torch import Tensor, nn

from mhsvm.ops.fused.linear import linear


class Linear(nn.Linear):
    """torch's linear layer with a bias, with its parameters, computed by `mhsvm.ops.fused.linear`.

    Args:
        in_channels: Channels c.
        out_channels: Channels o.
        backend: As in `mhsvm.ops.selective_scan`.
    """

    def __init__(self, in_channels: int, out_channels: int, *, backend: str = "auto") -> None:
        super().__init__(in_channels, out_channels)
        self.backend = backend

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., o)."""
        return linear(x, self.weight, self.bias, backend=self.backend)
