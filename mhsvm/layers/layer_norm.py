"""LayerNorm over channels that lie on the last axis."""

from torch import Tensor, nn

from mhsvm.ops.fused.layer_norm import layer_norm


class LayerNorm(nn.LayerNorm):
    """torch's LayerNorm of one axis, with its parameters, on a kernel for short rows where that runs.

    Args:
        channels: Channels c.
        narrow: Under autocast, put out its 16-bit type instead of float32: where a linear layer or a convolution reads
            the result, which would round it so itself, and nothing else does.
    Source: Ba et al. 2016, arXiv 1607.06450.
    """

    def __init__(self, channels: int, *, narrow: bool = False) -> None:
        super().__init__(channels)
        self.narrow = narrow

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(..., c) -> the same shape, times SiLU(gate) if a gate of that shape is given."""
        return layer_norm(x, self.weight, self.bias, gate=gate, epsilon=self.eps, narrow=self.narrow)
