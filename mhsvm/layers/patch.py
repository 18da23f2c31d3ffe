"""Changes of resolution in a U-shaped network, channels last: (b, h, w, c).

timm's classes are not used: their parameters have other names than those of checkpoints, and they need torchvision.
"""

from torch import Tensor, nn

from mhsvm.layers.layer_norm import LayerNorm


class PatchEmbed(nn.Module):
    """Image (b, in_channels, H, W) -> map (b, H/p, W/p, c): one convolution over patches of p x p, then LayerNorm."""

    def __init__(self, in_channels: int, channels: int, *, patch_size: int = 4, backend: str = "auto") -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_channels, channels, kernel_size=patch_size, stride=patch_size)
        self.norm = LayerNorm(channels, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchMerge(nn.Module):
    """(b, h, w, c) -> (b, h/2, w/2, 2c): LayerNorm and a linear layer over each 2 x 2 square. h and w are even.

    Source: Liu et al. 2021, arXiv 2103.14030.
    """

    def __init__(self, channels: int, *, backend: str = "auto") -> None:
        super().__init__()
        self.norm = LayerNorm(4 * channels, autocast_output=True, backend=backend)
        self.linear = nn.Linear(4 * channels, 2 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        # The cells of a square are in the order (0, 0), (1, 0), (0, 1), (1, 1): the row runs fastest.
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5)
        return self.linear(self.norm(x.reshape(b, h // 2, w // 2, 4 * c)))


class PatchExpand(nn.Module):
    """(b, h, w, c) -> (b, p*h, p*w, c/p) for a factor p: a linear layer to p*p cells of c/p channels, then LayerNorm.

    `autocast_output` and `backend` are those of `LayerNorm`.

    Source: Cao et al. 2021, arXiv 2105.05537.
    """

    def __init__(self, channels: int, *, factor: int, autocast_output: bool = False, backend: str = "auto") -> None:
        super().__init__()
        self.factor = factor
        self.linear = nn.Linear(channels, factor * channels, bias=False)
        self.norm = LayerNorm(channels // factor, autocast_output=autocast_output, backend=backend)

    def forward(self, x: Tensor) -> Tensor:
        b, h, w, c = x.shape
        p = self.factor
        x = self.linear(x).reshape(b, h, w, p, p, c // p).permute(0, 1, 3, 2, 4, 5)
        return self.norm(x.reshape(b, h * p, w * p, c // p))
