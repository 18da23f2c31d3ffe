"""VM-UNet: a U-shaped network whose blocks scan a map along rows and columns, both ways.

Source: Ruan & Xiang 2024, arXiv 2402.02491.
"""

import math
from collections.abc import Sequence

from torch import nn

from mhsvm.layers import SS2D, GatedScan
from mhsvm.models.registry import register_model
from mhsvm.models.vss_unet import VSSUNet


@register_model("vm_unet")
class VMUNet(VSSUNet):
    """VM-UNet. Its published results start from ImageNet weights: `load_weights` reads VMamba-S's encoder.

    Args:
        d_state: State size of the scans.
        backend: Of all layers, see `mhsvm.ops.selective_scan`.
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
            backend=backend,
        )
