"""EGE-UNet: a U-shaped network of Hadamard product attention, whose skip connections also pass masks.

Source: Ruan et al. 2023, arXiv 2307.08473.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers import GroupNormGELU, LayerNorm
from mhsvm.models.image import check_image
from mhsvm.models.registry import register_model
from mhsvm.models.ultralight_vm_unet import NORM_GROUPS, init_paper
from mhsvm.models.weight_format import KeyMark, Renames, Shapes, WeightFormat, renamed

# Dilation of the convolution of each group of the bridge.
_DILATIONS = (1, 2, 5, 7)
# Side of the learned tensors of the attention, which are resized to the map.
_SIDE = 8

_KEYS: Renames = (
    *((rf"^encoder\.{i}\.", f"encoder{i + 1}.0.") for i in range(6)),
    *((rf"^decoder\.{i}\.", f"decoder{i + 1}.0.") for i in range(5)),
    *((rf"^encoder_norms\.{i}\.", f"ebn{i + 1}.") for i in range(5)),
    *((rf"^decoder_norms\.{i}\.", f"dbn{i + 1}.") for i in range(5)),
    # ours are in the order of the decoder, the deepest first
    *((rf"^bridges\.{i}\.", f"GAB{5 - i}.") for i in range(5)),
    *((rf"^mask_heads\.{i}\.", f"gt_conv{i + 1}.0.") for i in range(5)),
    (r"\.project\.", ".pre_project."),
    (r"\.groups\.(\d)\.", r".g\1."),
    (r"\.tail\.", ".tail_conv."),
    (r"\.weights_(\w\w)$", r".params_\1"),
    (r"\.local\.", ".dw."),
    (r"\.out\.", ".ldw."),
    (r"^head\.", "final."),
)


def _arguments(shapes: Shapes) -> dict[str, Any]:
    layers = [f"encoder{i}.0.{'weight' if i <= 3 else 'ldw.2.weight'}" for i in range(1, 7)]
    return {
        "num_classes": shapes["final.weight"][0],
        "in_channels": shapes["encoder1.0.weight"][1],
        "channels": tuple(shapes[layer][0] for layer in layers),
    }


_PUBLISHED = WeightFormat(
    owner="its authors", mark=KeyMark(r"^GAB1\.pre_project\."), sources=renamed(_KEYS), arguments=_arguments
)


class ChannelNorm(LayerNorm):
    """LayerNorm over the channels of each position of a map (b, c, h, w)."""

    def __init__(self, channels: int, *, backend: str) -> None:
        super().__init__(channels, backend=backend)
        self.eps = 1e-6

    def forward(self, x: Tensor, gate: Tensor | None = None) -> Tensor:
        """(b, c, h, w) -> the same shape"""
        # torch 2.14 on the CPU crashes in the backward pass of some convolutions of channels-last maps in bfloat16
        return super().forward(x.movedim(1, -1), gate).movedim(-1, 1).contiguous()


class HadamardAttention(nn.Module):
    """GHPA: products of a map with learned tensors over rows and columns, rows, and columns, and a convolution.

    Each takes a quarter of the channels. The tensors are resized to the map and pass through convolutions first.

    Args:
        in_channels, out_channels: Channels before, a multiple of 4, and after.
        backend: Backend of the norms.
    """

    def __init__(self, in_channels: int, out_channels: int, *, backend: str) -> None:
        super().__init__()
        part = in_channels // 4
        self.norm1 = ChannelNorm(in_channels, backend=backend)
        self.weights_xy = nn.Parameter(torch.ones(1, part, _SIDE, _SIDE))
        self.weights_zx = nn.Parameter(torch.ones(1, 1, part, _SIDE))
        self.weights_zy = nn.Parameter(torch.ones(1, 1, part, _SIDE))
        self.conv_xy = _separable(nn.Conv2d, part, part)
        self.conv_zx = _separable(nn.Conv1d, part, part)
        self.conv_zy = _separable(nn.Conv1d, part, part)
        self.local = nn.Sequential(
            nn.Conv2d(part, part, 1), nn.GELU(), nn.Conv2d(part, part, 3, padding=1, groups=part)
        )
        self.norm2 = ChannelNorm(in_channels, backend=backend)
        self.out = _separable(nn.Conv2d, in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) -> (b, out_channels, h, w)"""
        area, rows, columns, rest = self.norm1(x).chunk(4, dim=1)
        c, h, w = area.shape[1:]
        parts = [
            area * self.conv_xy(_resized(self.weights_xy, h, w)),
            rows * self.conv_zx(_resized(self.weights_zx, c, h)[0]).unsqueeze(3),
            columns * self.conv_zy(_resized(self.weights_zy, c, w)[0]).unsqueeze(2),
            self.local(rest),
        ]
        return self.out(self.norm2(torch.cat(parts, dim=1)))


class GroupAggregationBridge(nn.Module):
    """GAB: joins a skip connection, the map below it and a mask, in four groups of channels of different dilation.

    Args:
        deep_channels: Channels of the map below.
        channels: Channels of the skip connection, a multiple of 4.
        mask_channels: Channels of the mask.
        backend: Backend of the norms.
    """

    def __init__(self, deep_channels: int, channels: int, *, mask_channels: int, backend: str) -> None:
        super().__init__()
        width = channels // 2 + mask_channels
        self.project = nn.Conv2d(deep_channels, channels, 1)
        self.groups = nn.ModuleList(
            nn.Sequential(
                ChannelNorm(width, backend=backend),
                nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation, groups=width),
            )
            for dilation in _DILATIONS
        )
        self.tail = nn.Sequential(ChannelNorm(4 * width, backend=backend), nn.Conv2d(4 * width, channels, 1))

    def forward(self, deep: Tensor, skip: Tensor, mask: Tensor) -> Tensor:
        """Map (b, deep_channels, h', w'), skip (b, channels, h, w), mask (b, mask_channels, h, w) -> like the skip."""
        deep = _resized(self.project(deep), *skip.shape[2:])
        halves = zip(self.groups, deep.chunk(4, dim=1), skip.chunk(4, dim=1), strict=True)
        return self.tail(torch.cat([group(torch.cat([a, b, mask], dim=1)) for group, a, b in halves], dim=1))


@register_model(
    "ege_unet",
    mark=KeyMark(r"^bridges\.\d\.groups\."),
    formats=[_PUBLISHED],
    small={"channels": (8, 16, 24, 32, 48, 64)},
)
class EGEUNet(nn.Module):
    """EGE-UNet. Every stage of its decoder predicts a mask, which the bridge of that stage takes.

    Args:
        num_classes: Channels of the output and of the masks of the stages.
        in_channels: Channels of the image.
        channels: Widths of the six stages, multiples of 4.
        auxiliary_weights: Weights of the losses of the masks of the five stages, the deepest first.
        backend: Backend of the norms, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The widths or weights do not fit, or an image has another shape.
    """

    stride = 32

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        channels: Sequence[int] = (8, 16, 24, 32, 48, 64),
        auxiliary_weights: Sequence[float] = (0.1, 0.2, 0.3, 0.4, 0.5),
        backend: str = "auto",
    ) -> None:
        super().__init__()
        channels, self.auxiliary_weights = tuple(channels), tuple(auxiliary_weights)
        if len(channels) != 6 or any(width < 1 or width % 4 for width in channels):
            raise ValueError(f"channels are six widths, multiples of 4; received {channels}")
        if len(self.auxiliary_weights) != 5 or min(self.auxiliary_weights) < 0:
            raise ValueError(f"auxiliary_weights are five numbers, at least 0; received {self.auxiliary_weights}")
        self.in_channels = in_channels
        c1, c2, c3, c4, c5, c6 = channels
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        attention = partial(HadamardAttention, backend=backend)
        norm = partial(GroupNormGELU, NORM_GROUPS, backend=backend)
        bridge = partial(GroupAggregationBridge, mask_channels=num_classes, backend=backend)

        self.encoder = nn.ModuleList(
            [
                *(conv(in_channels, c1), conv(c1, c2), conv(c2, c3)),
                *(attention(c3, c4), attention(c4, c5), attention(c5, c6)),
            ]
        )
        self.encoder_norms = nn.ModuleList(norm(c, resize="halve") for c in (c1, c2, c3, c4, c5))
        self.decoder = nn.ModuleList(
            [attention(c6, c5), attention(c5, c4), attention(c4, c3), conv(c3, c2), conv(c2, c1)]
        )
        self.decoder_norms = nn.ModuleList([norm(c5), *(norm(c, resize="double") for c in (c4, c3, c2, c1))])
        self.mask_heads = nn.ModuleList(nn.Conv2d(c, num_classes, kernel_size=1) for c in (c5, c4, c3, c2, c1))
        self.bridges = nn.ModuleList([bridge(c6, c5), bridge(c5, c4), bridge(c4, c3), bridge(c3, c2), bridge(c2, c1)])
        self.head = nn.Conv2d(c1, num_classes, kernel_size=1)
        self.apply(init_paper)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Image (b, in_channels, H, W) -> logits (b, num_classes, H, W); H and W are multiples of 32.

        In training mode a tuple: these logits, then those of the five stages in the same size, the deepest first.
        """
        x = check_image(image, in_channels=self.in_channels, stride=self.stride)
        h, w = x.shape[2:]
        skips = []
        for layer, norm in zip(self.encoder[:5], self.encoder_norms, strict=True):
            x = norm(layer(x))
            skips.append(x)
        x = deep = F.gelu(self.encoder[5](x))
        masks = []
        stages = zip(self.decoder, self.decoder_norms, self.mask_heads, self.bridges, reversed(skips), strict=True)
        for layer, norm, mask_head, bridge, skip in stages:
            x = norm(layer(x))
            masks.append(mask_head(x))
            deep = bridge(deep, skip, masks[-1])
            x = x + deep
        logits = _resized(self.head(x), h, w)
        return (logits, *(_resized(mask, h, w) for mask in masks)) if self.training else logits


def _separable(conv: type[nn.Conv1d] | type[nn.Conv2d], in_channels: int, out_channels: int) -> nn.Sequential:
    """Depthwise convolution of width 3, GELU and a convolution of width 1."""
    return nn.Sequential(
        conv(in_channels, in_channels, 3, padding=1, groups=in_channels), nn.GELU(), conv(in_channels, out_channels, 1)
    )


def _resized(x: Tensor, h: int, w: int) -> Tensor:
    return F.interpolate(x, size=(h, w), mode="bilinear", align_corners=True)
