"""A linear layer on few and short rows."""

from torch import Tensor, nn

from mhsvm.ops.fused.linear import linear


class Linear(nn.Linear):
    """torch's linear layer with a bias and its parameters, computed as `mhsvm.ops.fused.linear` says.

    Args:
        in_channels: Channels c.
        out_channels: Channels o.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(..., c) -> (..., o)."""
        return linear(x, self.weight, self.bias)
