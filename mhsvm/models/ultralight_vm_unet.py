"""UltraLight VM-UNet: a U-shaped network of convolutions and parallel Vision Mamba layers.

Source: Wu et al. 2024, arXiv 2403.20035.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mhsvm.layers import GroupNormGELU, PVMLayer, SkipBridge
from mhsvm.layers.mixers import Mixer, find_mixer
from mhsvm.models.image import check_image
from mhsvm.models.registry import register_model
from mhsvm.models.ultralight_native import ULTRALIGHT_VM_UNET
from mhsvm.models.weight_format import KeyMark, Renames, Shapes, WeightFormat, renamed
from mhsvm.ops.dispatch import is_exporting

NORM_GROUPS = 4

_KEYS: Renames = (
    *((rf"^encoder\.{i}\.", f"encoder{i + 1}.0.") for i in range(6)),
    *((rf"^decoder\.{i}\.", f"decoder{i + 1}.0.") for i in range(5)),
    *((rf"^encoder_norms\.{i}\.", f"ebn{i + 1}.") for i in range(5)),
    *((rf"^decoder_norms\.{i}\.", f"dbn{i + 1}.") for i in range(5)),
    *((rf"^bridge\.gates\.{i}\.", f"scab.catt.att{i + 1}.") for i in range(5)),
    (r"^bridge\.mix\.", "scab.catt.get_all_att."),
    (r"^bridge\.spatial\.", "scab.satt.shared_conv2d.0."),
    (r"^head\.", "final."),
    (r"\.mixer\.", ".mamba."),
)


def _arguments(shapes: Shapes) -> dict[str, Any]:
    layers = [f"encoder{i}.0.{'weight' if i <= 3 else 'proj.weight'}" for i in range(1, 7)]
    channels = tuple(shapes[layer][0] for layer in layers)
    mamba = "encoder4.0.mamba"
    width = shapes[f"{mamba}.in_proj.weight"][1]
    bridge = any(key.startswith("scab.") for key in shapes)
    arguments = {
        "num_classes": shapes["final.weight"][0],
        "in_channels": shapes["encoder1.0.weight"][1],
        "channels": channels,
        "branches": channels[2] // width,
        "bridge": bridge,
        "d_state": shapes[f"{mamba}.A_log"][1],
        "d_conv": shapes[f"{mamba}.conv1d.weight"][2],
        "expand": shapes[f"{mamba}.D"][0] // width,
    }
    if bridge:
        arguments["split_att"] = "fc" if len(shapes["scab.catt.att1.weight"]) == 2 else "conv"
    return arguments


_PUBLISHED = WeightFormat(
    owner="its authors", mark=KeyMark(r"^encoder4\.0\.mamba\."), sources=renamed(_KEYS), arguments=_arguments
)


@register_model(
    "ultralight_vm_unet",
    mark=KeyMark(r"^encoder\.\d\.mixer\."),
    formats=[_PUBLISHED],
    small={"channels": (4, 4, 8, 8, 12, 16), "branches": 2, "d_state": 4},
)
class UltraLightVMUNet(nn.Module):
    """UltraLight VM-UNet.

    Args:
        num_classes: Channels of the output.
        in_channels: Channels of the image.
        channels: Widths of the six stages. All but the last are multiples of 4; from the third on, all are multiples
            of `branches`.
        branches: Slices of the channels in each parallel Mamba layer; 1, 2 and 4 are the paper's settings 1-3.
        split_att: "fc" or "conv", how the bridge makes the gates of a skip connection.
        bridge: Whether the skip connections pass through the bridge.
        d_state, d_conv, expand: Arguments of the mixer; a mixer without one of them ignores it.
        init: "paper" initializes every linear and convolutional layer, those of the mixers too; "mamba" keeps the
            initial values of the mixers, for Mamba those of its authors.
        mixer: Mixer of the parallel layers, see `PVMLayer`; "mamba" is the published one.
        backend: Backend of all layers, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The widths do not fit, `split_att` or `init` is unknown, or an image has another shape.
    """

    stride = 32

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        channels: Sequence[int] = (8, 16, 24, 32, 48, 64),
        branches: int = 4,
        split_att: str = "fc",
        bridge: bool = True,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        init: str = "paper",
        mixer: str | Mixer = "mamba",
        backend: str = "auto",
    ) -> None:
        super().__init__()
        channels = tuple(channels)
        if len(channels) != 6 or any(width < 1 or width % NORM_GROUPS for width in channels[:5]):
            raise ValueError(f"channels are six widths, the first five multiples of {NORM_GROUPS}; received {channels}")
        if init not in ("paper", "mamba"):
            raise ValueError(f"init is paper or mamba; received {init!r}")
        self.in_channels = in_channels
        self.backend = backend
        # another mixer may use random numbers
        self.has_independent_images = mixer == "mamba"
        c1, c2, c3, c4, c5, c6 = channels
        conv = partial(nn.Conv2d, kernel_size=3, padding=1)
        mixer = find_mixer(mixer, d_state=d_state, d_conv=d_conv, expand=expand, backend=backend)
        pvm = partial(PVMLayer, branches=branches, mixer=mixer, backend=backend)
        norm = partial(GroupNormGELU, NORM_GROUPS, backend=backend)

        self.encoder = nn.ModuleList(
            [conv(in_channels, c1), conv(c1, c2), conv(c2, c3), pvm(c3, c4), pvm(c4, c5), pvm(c5, c6)]
        )
        self.encoder_norms = nn.ModuleList(norm(c, resize="halve") for c in (c1, c2, c3, c4, c5))
        self.bridge = SkipBridge(channels[:5], split_att=split_att, backend=backend) if bridge else nn.Identity()
        self.decoder = nn.ModuleList([pvm(c6, c5), pvm(c5, c4), pvm(c4, c3), conv(c3, c2), conv(c2, c1)])
        doubling = [norm(c, resize="double") for c in (c4, c3, c2, c1)]
        self.decoder_norms = nn.ModuleList([norm(c5), *doubling])
        self.head = nn.Conv2d(c1, num_classes, kernel_size=1)
        self.init_weights(keep_mixers=init == "mamba")

    def init_weights(self, *, keep_mixers: bool) -> None:
        """Set the paper's initial values. They also set the bias of Mamba's delta to 0, unless mixers are kept."""
        kept = {part for layer in self.modules() if isinstance(layer, PVMLayer) for part in layer.mixer.modules()}
        for module in self.modules():
            if not (keep_mixers and module in kept):
                init_paper(module)

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, in_channels, H, W) -> logits (b, num_classes, H, W); H and W are multiples of 32."""
        x = check_image(image, in_channels=self.in_channels, stride=self.stride)
        return ULTRALIGHT_VM_UNET(self.backend, x, self)

    def by_layers(self, x: Tensor) -> Tensor:
        """`forward` of a checked image, layer by layer."""
        if x.device.type == "cpu" and not is_exporting():
            # PVM layers, pooling and resampling are four times as fast on channels-last maps.
            x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for layer, norm in zip(self.encoder[:5], self.encoder_norms, strict=True):
            x = norm(layer(x))
            skips.append(x)
        x = F.gelu(self.encoder[5](x))
        skips = self.bridge(skips)
        for layer, norm, skip in zip(self.decoder, self.decoder_norms, reversed(skips), strict=True):
            x = norm(layer(x), skip=skip)
        return F.interpolate(self.head(x), scale_factor=2, mode="bilinear", align_corners=True)


def init_paper(module: nn.Module) -> None:
    """Initialize one layer as the paper does."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Conv1d):
        nn.init.normal_(module.weight, std=math.sqrt(2 / (module.kernel_size[0] * module.out_channels)))
    elif isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels // module.groups
        nn.init.normal_(module.weight, std=math.sqrt(2 / fan_out))
        if module.bias is not None:
            nn.init.zeros_(module.bias)
