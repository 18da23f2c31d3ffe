"""MHS-VM: a U-shaped network whose blocks scan a map with several heads, each along routes of its own.

Source: Ji 2024, arXiv 2406.05992.
"""

from collections.abc import Sequence

from torch import nn

from mhsvm.layers import GatedScan, MultiHeadScan
from mhsvm.models.registry import register_model
from mhsvm.models.vss_unet import VSSUNet


@register_model("mhs_vm")
class MHSVM(VSSUNet):
    """MHS-VM.

    Args:
        patterns: One scan pattern a head, names from `mhsvm.routes.list_patterns()`; ("C", "X", "S") is the
            published network of three heads.
        gate, gate_threshold, gate_learnable, gate_power: Scan Route Attention, see `MultiHeadScan`.
        project: Norm and mix the heads' channels behind each multi-head scan.
        d_state: State size of the scans.
        backend: Of all layers, see `mhsvm.ops.selective_scan`.
        The rest: see `VSSUNet`.
    Raises:
        ValueError: The heads or stages do not fit together, or a name is unknown.
    """

    def __init__(
        self,
        *,
        num_classes: int = 1,
        in_channels: int = 3,
        patterns: Sequence[str] = ("C", "X", "S", "Z"),
        gate: str = "relu",
        gate_threshold: float | None = None,
        gate_learnable: bool = False,
        gate_power: float = 2.0,
        project: bool = True,
        dims: Sequence[int] = (96, 192, 384, 768),
        depths: Sequence[int] = (2, 2, 2, 2),
        decoder_depths: Sequence[int] = (2, 2, 2, 1),
        d_state: int = 16,
        drop_path_rate: float = 0.2,
        backend: str = "auto",
    ) -> None:
        def mixer(channels: int) -> nn.Module:
            scan = MultiHeadScan(
                channels,
                patterns=patterns,
                gate=gate,
                gate_threshold=gate_threshold,
                gate_learnable=gate_learnable,
                gate_power=gate_power,
                project=project,
                d_state=d_state,
                backend=backend,
            )
            return GatedScan(channels, scan=scan, inner_channels=channels, out_proj=False, backend=backend)

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
        self.patterns = tuple(patterns)
