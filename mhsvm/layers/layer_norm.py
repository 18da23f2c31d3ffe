"""LayerNorm over the last axis."""

from torch import Tensor, nn

from mhsvm.ops.fused.layer_norm import layer_norm


class LayerNorm(nn.LayerNorm):
    """torch's LayerNorm of one axis, with its parameters, computed by `mhsvm.ops.fused.layer_norm`.

    Args:
        channels: Channels c.
        autocast_output: Under autocast, return its 16-bit type instead of float32: for a following linear layer or
            convolution, which would round to that type itself.
        backend: As in `mhsvm.ops.selective_scan`.
    Source: Ba et al. 2016, arXiv 1607.06450.
    """

    def __init__(self, channels: int, *, autocast_output: bool = False, backend: str = "auto") -> None:
        super().__init__(channels)
        self.autocast_output = autocast_output
        self.backend = backend

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(..., c) -> the same shape, times SiLU(gate) if a gate of that shape is given."""
        return layer_norm(
            x,
            self.weight,
            self.bias,
            gate=gate,
            eps=self.eps,
            autocast_output=self.autocast_output,
            backend=self.backend,
        )
