"""Which network a state dict belongs to, and how that network was built: from its keys and shapes alone."""

import re
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Any

from torch import Size, Tensor

from mhsvm.models.checkpoint_file import weights_in


class Layout(Enum):
    """Whose names the keys are."""

    OURS = "this package"
    PUBLISHED = "its authors"
    ENCODER = "VMamba"


# The first that fits counts.
_MARKS: tuple[tuple[str, Layout, str], ...] = (
    ("mhs_vm", Layout.PUBLISHED, r"\.self_attention\.mhs\."),
    ("vm_unet", Layout.PUBLISHED, r"^layers_up\.\d+\.blocks\.\d+\.self_attention\.x_proj_weight$"),
    ("vm_unet", Layout.ENCODER, r"^layers\.\d+\.blocks\.\d+\.self_attention\."),
    ("ultralight_vm_unet", Layout.PUBLISHED, r"^encoder4\.0\.mamba\."),
    ("mhs_vm", Layout.OURS, r"\.mixer\.scan\.in_proj\."),
    ("vm_unet", Layout.OURS, r"\.mixer\.scan\.s6\."),
    ("ultralight_vm_unet", Layout.OURS, r"^encoder\.\d\.mixer\."),
)


def identify(state: Iterable[str]) -> tuple[str, Layout] | None:
    """Model name and naming of a state dict's keys; None if they are of no network of this package."""
    keys = list(state)
    for name, layout, mark in _MARKS:
        if any(re.search(mark, key) for key in keys):
            return name, layout
    return None


def recognise(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Find out which network a published file belongs to.

    Args:
        content: What `read_checkpoint` returns, or the state dict alone.
    Returns:
        The name and keywords with which `create_model` builds it. What a file does not show (the gate of
        MHS-VM and its threshold, the drop path) is left at its default.
    Raises:
        ValueError: The keys are of no published network that this package knows, or some are missing.
    """
    state = weights_in(content)
    found = identify(state)
    if found is None or found[1] is not Layout.PUBLISHED:
        kind = "names of no network of this package" if found is None else f"the names of {found[1].value}"
        raise ValueError(
            f"only published files of MHS-VM, VM-UNet and UltraLight VM-UNet are recognised by their keys; "
            f"these are {kind}, beginning with {', '.join(list(state)[:3])}. Name the model"
        )
    name = found[0]
    shapes = _Shapes(name, state)
    return name, _ultralight(shapes) if name == "ultralight_vm_unet" else _vss_unet(name, shapes)


class _Shapes(dict[str, Size]):
    """Shapes of a state dict; a missing one is the caller's error."""

    def __init__(self, name: str, state: Mapping[str, Tensor]) -> None:
        super().__init__((key, value.shape) for key, value in state.items())
        self.name = name

    def __missing__(self, key: str) -> Size:
        raise ValueError(f"the file holds weights of {self.name}, but lacks {key}: it is not complete")


def scan_heads(keys: Iterable[str]) -> tuple[str, ...]:
    """Patterns of the heads in a published MHS-VM file, in the order of their channels."""
    names = set(re.findall(r"\.scanhead_(\w)\.", " ".join(keys)))
    return tuple(pattern for pattern in "CXSZ" if pattern in names)


def _vss_unet(name: str, shapes: _Shapes) -> dict[str, Any]:
    depths = _depths("layers", shapes)
    arguments = {
        "num_classes": shapes["final_conv.weight"][0],
        "in_channels": shapes["patch_embed.proj.weight"][1],
        "dims": tuple(shapes[f"layers.{i}.blocks.0.ln_1.weight"][0] for i in range(len(depths))),
        "depths": depths,
        "decoder_depths": _depths("layers_up", shapes),
    }
    attention = "layers.0.blocks.0.self_attention"
    if name == "vm_unet":
        return arguments | {"d_state": shapes[f"{attention}.A_logs"][1]}
    patterns = scan_heads(shapes)
    scan = f"{attention}.mhs.scanhead_{patterns[0] if patterns else 'C'}.mambaeng"
    return arguments | {
        "patterns": patterns,
        "project": f"{attention}.mhs.y_proj.weight" in shapes,
        "d_state": shapes[f"{scan}.A_logs"][1],
    }


def _depths(stages: str, shapes: _Shapes) -> tuple[int, ...]:
    blocks = {
        (int(match[1]), int(match[2]))
        for match in (re.match(rf"{stages}\.(\d+)\.blocks\.(\d+)\.", key) for key in shapes)
        if match
    }
    num_stages = 1 + max((stage for stage, _ in blocks), default=-1)
    return tuple(sum(stage == i for stage, _ in blocks) for i in range(num_stages))


def _ultralight(shapes: _Shapes) -> dict[str, Any]:
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
