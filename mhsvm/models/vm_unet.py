"""VM-UNet: a U-shaped network whose blocks scan a map along rows and columns, both ways.

Source: Ruan & Xiang 2024, arXiv 2402.02491.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from mhsvm.layers import SS2D, GatedScan
from mhsvm.models.registry import register_model
from mhsvm.models.vss_unet import PUBLISHED_PREFIX, SMALL, VSSUNet, published_arguments, published_sources
from mhsvm.models.weight_format import KeyMark, Shapes, TensorSource, WeightFormat

# A key of the decoder's scans; files of VMamba have no decoder.
_DECODER = r"^layers_up\.\d+\.blocks\.\d+\.self_attention\.x_proj_weight$"


def _sources(model: nn.Module) -> dict[str, TensorSource]:
    # the files store both reverse routes last
    return published_sources(model, heads=[""], routes=(0, 2, 1, 3))


def _encoder_sources(model: nn.Module) -> dict[str, TensorSource]:
    """Encoder stage i of the file also fills the decoder stage of its size."""
    assert isinstance(model, VSSUNet)
    last = len(model.encoder) - 1

    def encoder_key(key: str) -> str:
        return re.sub(r"^layers_up\.(\d+)\.", lambda stage: f"layers.{last - int(stage[1])}.", key)

    return {key: replace(source, keys=tuple(map(encoder_key, source.keys))) for key, source in _sources(model).items()}


def _arguments(shapes: Shapes) -> dict[str, Any]:
    return {
        **published_arguments(shapes),
        "d_state": shapes["layers.0.blocks.0.self_attention.A_logs"][1],
    }


_PUBLISHED = WeightFormat(
    owner="its authors",
    mark=KeyMark(_DECODER),
    sources=_sources,
    arguments=_arguments,
    prefix=PUBLISHED_PREFIX,
)
_ENCODER = WeightFormat(
    owner="VMamba",
    mark=KeyMark(r"^layers\.\d+\.blocks\.\d+\.self_attention\.", absent=rf"{_DECODER}|\.self_attention\.mhs\."),
    sources=_encoder_sources,
    partial=True,
    hint="VMamba-S has dims=(96, 192, 384, 768), d_state=16 and in_channels=3",
)


@register_model(
    "vm_unet",
    mark=KeyMark(r"^encoder\.\d+\.blocks\.\d+\.(parts\.\d+\.)?mixer\.scan\.s6\.", absent=r"\.mixer\.scan\.in_proj\."),
    formats=[_PUBLISHED, _ENCODER],
    small=SMALL,
)
class VMUNet(VSSUNet):
    """VM-UNet. Its published results start from ImageNet weights: `load_weights` reads VMamba-S's encoder.

    Args:
        d_state: State size of the scans.
        backend: Backend of all layers, see `mhsvm.ops.selective_scan`.
        The rest: see `VSSUNet`.
    Raises:
        ValueError: The stages do not fit together.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 2, 2),
        decoder_depths: Sequence[int] = (2, 2, 2, 1),
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        branches: int = 1,
        share_branches: bool = True,
        backend: str = "auto",
    ) -> None:
        def mixer(channels: int) -> nn.Module:
            inner = 2 * channels
            scan = SS2D(inner, d_state=d_state, dt_rank=math.ceil(channels / 16), backend=backend)
            return GatedScan(channels, scan=scan, inner_channels=inner, out_proj=True, backend=backend)

        super().__init__(
            mixer=mixer,
            num_classes=num_classes,
            in_channels=in_channels,
            dims=dims,
            depths=depths,
            decoder_depths=decoder_depths,
            drop_path_rate=drop_path_rate,
            branches=branches,
            share_branches=share_branches,
            backend=backend,
        )
