"""MALUNet: a U-shaped network of convolutions, dilated gated attention and external attention.

Source: Ruan et al. 2022, arXiv 2211.01784.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers import GroupNormGELU, SkipBridge
from mhsvm.models.image import check_image
from mhsvm.models.registry import register_model
from mhsvm.models.ultralight_vm_unet import NORM_GROUPS, init_paper
from mhsvm.models.weight_format import KeyMark, Renames, Shapes, WeightFormat, renamed

# Dilation of the convolution of each quarter of the channels.
_DILATIONS = (7, 5, 2, 1)
# Slots of the external memory for each channel.
_SLOTS_PER_CHANNEL = 4

_KEYS: Renames = (
    *((rf"^encoder\.{i}\.", f"encoder{i + 1}.{'0.' if i < 3 else ''}") for i in range(6)),
    *((rf"^decoder\.{i}\.", f"decoder{i + 1}.{'0.' if i >= 3 else ''}") for i in range(5)),
    *((rf"^encoder_norms\.{i}\.", f"ebn{i + 1}.") for i in range(5)),
    *((rf"^decoder_norms\.{i}\.", f"dbn{i + 1}.") for i in range(5)),
    *((rf"^bridge\.gates\.{i}\.", f"scab.catt.att{i + 1}.") for i in range(5)),
    (r"^bridge\.mix\.", "scab.catt.get_all_att."),
    (r"^bridge\.spatial\.", "scab.satt.shared_conv2d.0."),
    (r"^head\.", "final."),
    (r"\.dilated\.(\d)\.", r".mda\1."),
    (r"\.mix\.", ".conv."),
    (r"\.norm\.", ".norm_layer."),
    (r"\.gate\.small\.", ".gau.w1.0."),
    (r"\.gate\.large\.", ".gau.w2.0."),
    (r"\.gate\.out\.", ".gau.wo.0."),
    (r"\.gate\.skip\.", ".gau.cw."),
    (r"\.depthwise\.", ".conv1."),
    (r"\.pointwise\.", ".conv2."),
    (r"\.query\.", ".conv1."),
    (r"\.keys\.", ".linear_0."),
    (r"\.values\.", ".linear_1."),
    (r"\.out\.", ".conv2."),
)


def _arguments(shapes: Shapes) -> dict[str, Any]:
    layers = [f"encoder{i}.{'0' if i <= 3 else '1.gau.cw'}.weight" for i in range(1, 7)]
    bridge = any(key.startswith("scab.") for key in shapes)
    arguments = {
        "num_classes": shapes["final.weight"][0],
        "in_channels": shapes["encoder1.0.weight"][1],
        "channels": tuple(shapes[layer][0] for layer in layers),
        "bridge": bridge,
    }
    if bridge:
        arguments["split_att"] = "fc" if len(shapes["scab.catt.att1.weight"]) == 2 else "conv"
    return arguments


_PUBLISHED = WeightFormat(
    owner="its authors", mark=KeyMark(r"^encoder4\.1\.gau\."), sources=renamed(_KEYS), arguments=_arguments
)


class SeparableConv(nn.Module):
    """Depthwise convolution, GroupNorm and a 1 x 1 convolution.

    Args:
        in_channels, out_channels: Channels before and after.
        size: Side of the depthwise filters, odd.
    """

    def __init__(self, in_channels: int, out_channels: int, *, size: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(in_channels, in_channels, size, padding=size // 2, groups=in_channels)
        self.norm = nn.GroupNorm(NORM_GROUPS, in_channels)
        self.pointwise = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) -> (b, out_channels, h, w)"""
        return self.pointwise(self.norm(self.depthwise(x)))


class GatedUnit(nn.Module):
    """A map gated by itself: GELU(out(sigmoid(small(x)) * GELU(large(x)))) + skip(x)."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.small = SeparableConv(in_channels, in_channels, size=3)
        self.large = SeparableConv(in_channels, in_channels, size=5)
        self.out = SeparableConv(in_channels, out_channels, size=3)
        self.skip = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) -> (b, out_channels, h, w)"""
        gated = self.small(x).sigmoid() * F.gelu(self.large(x))
        return F.gelu(self.out(gated)) + self.skip(x)


class DilatedGatedAttention(nn.Module):
    """DGA: depthwise convolutions of four dilations, each on a quarter of the channels, then a gated unit."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        part = in_channels // len(_DILATIONS)
        self.dilated = nn.ModuleList(
            nn.Conv2d(part, part, 3, padding=dilation, dilation=dilation, groups=part) for dilation in _DILATIONS
        )
        self.norm = nn.GroupNorm(NORM_GROUPS, in_channels)
        self.mix = nn.Conv2d(in_channels, in_channels, 1)
        self.gate = GatedUnit(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, in_channels, h, w) -> (b, out_channels, h, w)"""
        parts = x.chunk(len(self.dilated), dim=1)
        x = torch.cat([conv(part) for conv, part in zip(self.dilated, parts, strict=True)], dim=1)
        return self.gate(F.gelu(self.mix(self.norm(x))))


class ExternalAttention(nn.Module):
    """IEA: attention of all positions to a learned memory that all images share.

    Source: Guo et al. 2021, arXiv 2105.02358; as used in Ruan et al. 2022, arXiv 2211.01784.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        slots = _SLOTS_PER_CHANNEL * channels
        self.query = nn.Conv2d(channels, channels, 1)
        self.keys = nn.Conv1d(channels, slots, 1, bias=False)
        self.values = nn.Conv1d(slots, channels, 1, bias=False)
        self.out = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm = nn.GroupNorm(NORM_GROUPS, channels)

    def forward(self, x: Tensor) -> Tensor:
        """(b, c, h, w) -> the same shape"""
        attention = self.keys(self.query(x).flatten(2)).softmax(dim=-1)  # (b, slots, h * w)
        attention = attention / (1e-9 + attention.sum(dim=1, keepdim=True))
        return F.gelu(self.norm(self.out(self.values(attention).view(x.shape))) + x)


@register_model(
    "malunet",
    mark=KeyMark(r"^encoder\.\d\.1\.gate\.small\."),
    formats=[_PUBLISHED],
    small={"channels": (4, 4, 8, 8, 12, 16)},
)
class MALUNet(nn.Module):
    """MALUNet.

    Args:
        num_classes: Channels of the output.
        in_channels: Channels of the image.
        channels: Widths of the six stages, multiples of 4.
        split_att: "fc" or "conv", how the bridge makes the gates of a skip connection.
        bridge: Whether the skip connections pass through the bridge.
        backend: Backend of the norms and the bridge, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The widths do not fit, `split_att` is unknown, or an image has another shape.
    """

    stride = 32
    has_independent_images = True

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        channels: Sequence[int] = (8, 16, 24, 32, 48, 64),
        split_att: str = "fc",
        bridge: bool = True,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        channels = tuple(channels)
        if len(channels) != 6 or any(width < 1 or width % 4 for width in channels):
            raise ValueError(f"channels are six widths, multiples of 4; received {channels}")
        self.in_channels = in_channels
        c1, c2, c3, c4, c5, c6 = channels
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        norm = partial(GroupNormGELU, NORM_GROUPS, backend=backend)

        self.encoder = nn.ModuleList(
            [
                *(conv(in_channels, c1), conv(c1, c2), conv(c2, c3)),
                *(_attention_stage(a, b) for a, b in ((c3, c4), (c4, c5), (c5, c6))),
            ]
        )
        self.encoder_norms = nn.ModuleList(norm(c, resize="halve") for c in (c1, c2, c3, c4, c5))
        self.bridge = SkipBridge(channels[:5], split_att=split_att, backend=backend) if bridge else nn.Identity()
        self.decoder = nn.ModuleList(
            [
                *(_attention_stage(a, b, decodes=True) for a, b in ((c6, c5), (c5, c4), (c4, c3))),
                *(conv(c3, c2), conv(c2, c1)),
            ]
        )
        self.decoder_norms = nn.ModuleList([norm(c5), *(norm(c, resize="double") for c in (c4, c3, c2, c1))])
        self.head = nn.Conv2d(c1, num_classes, kernel_size=1)
        self.init_weights()

    def init_weights(self) -> None:
        """Set the paper's initial values; keys of the external memory start as its values."""
        for module in self.modules():
            init_paper(module)
        for module in self.modules():
            if isinstance(module, ExternalAttention):
                with torch.no_grad():
                    module.keys.weight.copy_(module.values.weight.transpose(0, 1))

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, in_channels, H, W) -> logits (b, num_classes, H, W); H and W are multiples of 32."""
        x = check_image(image, in_channels=self.in_channels, stride=self.stride)
        skips = []
        for layer, norm in zip(self.encoder[:5], self.encoder_norms, strict=True):
            x = norm(layer(x))
            skips.append(x)
        x = F.gelu(self.encoder[5](x))
        for layer, norm, skip in zip(self.decoder, self.decoder_norms, reversed(self.bridge(skips)), strict=True):
            x = norm(layer(x), skip=skip)
        return F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=True)


def _attention_stage(in_channels: int, out_channels: int, *, decodes: bool = False) -> nn.Sequential:
    """A gated attention, with external attention before it in the encoder and after it in the decoder."""
    gated = DilatedGatedAttention(in_channels, out_channels)
    if decodes:
        return nn.Sequential(gated, ExternalAttention(out_channels))
    return nn.Sequential(ExternalAttention(in_channels), gated)
