"""GroupNorm, resizing and GELU: the end of a stage of UltraLight VM-UNet."""

from torch import Tensor, nn

from mhsvm.ops.fused.group_norm import group_norm_gelu


class GroupNormGELU(nn.GroupNorm):
    """GELU(resize(GroupNorm(x))) + skip, with the parameters of torch's GroupNorm.

    Args:
        groups: Number of groups, a divisor of the channels.
        channels: Channels c.
        resize: "keep"; "halve", the maximum of each 2 x 2 square; or "double", bilinear with corners on corners.
        backend: As in `mhsvm.ops.selective_scan`.
    Source: Wu & He 2018, arXiv 1803.08494; as used in Wu et al. 2024, arXiv 2403.20035.
    """

    def __init__(self, groups: int, channels: int, *, resize: str = "keep", backend: str = "auto") -> None:
        super().__init__(groups, channels)
        self.resize = resize
        self.backend = backend

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Map (b, c, h, w) and a skip connection shaped like the output -> (b, c, h', w')."""
        return group_norm_gelu(
            x,
            self.weight,
            self.bias,
            groups=self.num_groups,
            resize=self.resize,
            skip=skip,
            eps=self.eps,
            backend=self.backend,
        )

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, resize={self.resize!r}"
