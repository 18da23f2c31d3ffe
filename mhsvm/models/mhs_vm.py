"""MHS-VM: a U-shaped network whose blocks scan a map with several heads, each along routes of its own.

Source: Ji 2024, arXiv 2406.05992.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import nn

from mhsvm.layers import GatedScan, MultiHeadScan
from mhsvm.models.registry import register_model
from mhsvm.models.vss_unet import PUBLISHED_PREFIX, SMALL, VSSUNet, published_arguments, published_sources
from mhsvm.models.weight_format import KeyMark, Renames, Shapes, State, TensorSource, WeightFormat, rename

# Parameters that published files store under two names, and the name that is kept.
_TWINS: Renames = (
    (r"\.scanning\.seq2seq_engine\.", ".mambaeng."),
    (r"\.x_ssproj_W$", ".x_ssproj.weight"),
)


def _sources(model: nn.Module) -> dict[str, TensorSource]:
    assert isinstance(model, MHSVM)
    heads = [f"mhs.scanhead_{pattern}.mambaeng." for pattern in model.patterns]
    return published_sources(model, heads=heads, routes=range(4))


def _arguments(shapes: Shapes) -> dict[str, Any]:
    patterns = _scan_heads(shapes)
    attention = "layers.0.blocks.0.self_attention.mhs"
    first = patterns[0] if patterns else "C"
    return {
        **published_arguments(shapes),
        "patterns": patterns,
        "project": f"{attention}.y_proj.weight" in shapes,
        "d_state": shapes[f"{attention}.scanhead_{first}.mambaeng.A_logs"][1],
    }


def _prepare(model: nn.Module, state: State) -> State:
    """Merge parameters that are stored twice, and check that the model has the heads of the file."""
    assert isinstance(model, MHSVM)
    patterns = _scan_heads(state)
    if model.patterns != patterns:
        raise ValueError(
            f"the file's heads scan along {', '.join(patterns)}, in this order; the model's along "
            f"{', '.join(model.patterns)}. Build it with patterns={patterns}"
        )
    if any(key.endswith(".attention.threshold") for key in model.state_dict()):
        raise ValueError(
            "published files do not hold the learnable threshold of the model's gates. "
            "Build it with gate_learnable=False and their threshold as gate_threshold"
        )
    return _merge_twins(state)


def _scan_heads(keys: Iterable[str]) -> tuple[str, ...]:
    """Patterns of the heads in a published file, in the order of their channels."""
    names = set(re.findall(r"\.scanhead_(\w)\.", " ".join(keys)))
    return tuple(pattern for pattern in "CXSZ" if pattern in names)


def _merge_twins(state: State) -> State:
    merged: dict[str, torch.Tensor] = {}
    different = []
    for key, value in state.items():
        kept = rename(key, _TWINS)
        if kept in merged and not torch.equal(merged[kept], value):
            different.append(kept)
        merged[kept] = value
    if different:
        raise ValueError(
            "the file stores each of these parameters under two names, with different values: "
            f"{', '.join(different)}. It was changed after training; take the original file"
        )
    return merged


_PUBLISHED = WeightFormat(
    owner="its authors",
    mark=KeyMark(r"^layers\.\d+\.blocks\.\d+\.self_attention\.mhs\."),
    sources=_sources,
    arguments=_arguments,
    # the authors evaluate with it
    assumed={"gate_threshold": 0.4},
    prefix=PUBLISHED_PREFIX,
    prepare=_prepare,
)


@register_model(
    "mhs_vm",
    mark=KeyMark(r"^encoder\.\d+\.blocks\.\d+\.(parts\.\d+\.)?mixer\.scan\.in_proj\."),
    formats=[_PUBLISHED],
    small={**SMALL, "patterns": ("C", "X", "S"), "gate_threshold": 0.0},
)
class MHSVM(VSSUNet):
    """MHS-VM.

    Args:
        patterns: One scan pattern a head, names from `mhsvm.routes.list_patterns()`; ("C", "X", "S") is the
            published network of three heads.
        gate, gate_threshold, gate_learnable, gate_power: Scan Route Attention, see `MultiHeadScan`.
        project: Normalize and mix the channels of the heads after each multi-head scan.
        head_divisor, fusion: See `MultiHeadScan`.
        silu_branch: Whether the output of each multi-head scan is multiplied by SiLU of a second projection.
        d_state: State size of the scans.
        backend: Backend of all layers, see `mhsvm.ops.selective_scan`.
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
        head_divisor: int = 0,
        fusion: str = "sum",
        silu_branch: bool = True,
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
            scan = MultiHeadScan(
                channels,
                patterns=patterns,
                gate=gate,
                gate_threshold=gate_threshold,
                gate_learnable=gate_learnable,
                gate_power=gate_power,
                project=project,
                head_divisor=head_divisor,
                fusion=fusion,
                d_state=d_state,
                backend=backend,
            )
            return GatedScan(
                channels,
                scan=scan,
                inner_channels=channels,
                out_proj=False,
                silu_branch=silu_branch,
                backend=backend,
            )

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
        self.patterns = tuple(patterns)
