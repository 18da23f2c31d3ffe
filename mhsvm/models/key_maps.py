"""Where each tensor of our networks stands in the published files.

Published MHS-VM and VM-UNet keys are written here without their common prefix "vmunet.".
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Size, Tensor

# Our key -> the published one, applied one after the other.
Renames = Sequence[tuple[str, str]]

VSS_UNET: Renames = (
    (r"^encoder\.(\d+)\.merge\.linear\.", r"layers.\1.downsample.reduction."),
    (r"^encoder\.(\d+)\.merge\.", r"layers.\1.downsample."),
    (r"^decoder\.(\d+)\.expand\.linear\.", r"layers_up.\1.upsample.expand."),
    (r"^decoder\.(\d+)\.expand\.", r"layers_up.\1.upsample."),
    (r"^encoder\.", "layers."),
    (r"^decoder\.", "layers_up."),
    (r"^head_expand\.linear\.", "final_up.expand."),
    (r"^head_expand\.", "final_up."),
    (r"^head\.", "final_conv."),
    (r"(\.blocks\.\d+)\.norm\.", r"\1.ln_1."),
    (r"\.mixer\.conv\.", ".self_attention.conv2d."),
    (r"\.mixer\.norm\.", ".self_attention.out_norm."),
    (r"\.mixer\.scan\.in_proj\.", ".self_attention.mhs.x_ssproj."),
    (r"\.mixer\.scan\.norm\.", ".self_attention.mhs.cat_norm."),
    (r"\.mixer\.scan\.out_proj\.", ".self_attention.mhs.y_proj."),
    (r"\.mixer\.", ".self_attention."),
)

ULTRALIGHT: Renames = (
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

# Parameters of a route-wise scan; ours are stacked over the heads, and theirs join routes and channels in some.
ROUTE_S6 = {
    "x_proj": "x_proj_weight",
    "dt_proj": "dt_projs_weight",
    "dt_bias": "dt_projs_bias",
    "A_log": "A_logs",
    "D": "Ds",
}
JOINED = ("A_log", "D")

# Published routes in our order: base 0, its reverse, base 1, its reverse. VM-UNet's files put both reverses last.
MHS_VM_ROUTES = [0, 1, 2, 3]
VM_UNET_ROUTES = [0, 2, 1, 3]

# What published MHS-VM files store under two names, and the name kept.
TWINS: Renames = (
    (r"\.scanning\.seq2seq_engine\.", ".mambaeng."),
    (r"\.x_ssproj_W$", ".x_ssproj.weight"),
)


@dataclass(frozen=True)
class Source:
    """Where one tensor of ours comes from.

    Attributes:
        keys: Published keys: one, or for a scan's parameters one a head.
        shape: Of each of those tensors.
        own_shape: Of our tensor.
        routes: For a scan's parameters, the published index of each of our routes.
    """

    keys: tuple[str, ...]
    shape: Size
    own_shape: Size
    routes: list[int] | None = None

    def take_from(self, published: Mapping[str, Tensor]) -> Tensor:
        if self.routes is None:
            return published[self.keys[0]]
        return torch.stack([published[key].reshape(self.own_shape[1:])[self.routes] for key in self.keys])


def published_sources(name: str, own: Mapping[str, Tensor], *, patterns: Sequence[str] = ()) -> dict[str, Source]:
    """The source of each entry of our state dict `own` of model `name`, whose heads walk `patterns`."""
    if name == "ultralight_vm_unet":
        return {key: Source((rename(key, ULTRALIGHT),), value.shape, value.shape) for key, value in own.items()}
    sources = {}
    for key, value in own.items():
        block, is_scan, parameter = key.partition(".mixer.scan.s6.")
        if not is_scan:
            sources[key] = Source((rename(key, VSS_UNET),), value.shape, value.shape)
            continue
        shape = value.shape[1:]
        if parameter in JOINED:
            shape = Size((shape[0] * shape[1], *shape[2:]))
        attention = rename(block + ".mixer.", VSS_UNET)
        if name == "vm_unet":
            keys = (attention + ROUTE_S6[parameter],)
            sources[key] = Source(keys, shape, value.shape, VM_UNET_ROUTES)
        else:
            heads = (f"{attention}mhs.scanhead_{pattern}.mambaeng." for pattern in patterns)
            keys = tuple(head + ROUTE_S6[parameter] for head in heads)
            sources[key] = Source(keys, shape, value.shape, MHS_VM_ROUTES)
    return sources


def merge_twins(published: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keep each parameter of a published MHS-VM file once.

    Raises:
        ValueError: Two names of one parameter hold different values.
    """
    merged: dict[str, Tensor] = {}
    different = []
    for key, value in published.items():
        kept = rename(key, TWINS)
        if kept in merged and not torch.equal(merged[kept], value):
            different.append(kept)
        merged[kept] = value
    if different:
        raise ValueError(
            "the file stores each of these parameters under two names, with different values: "
            f"{', '.join(different)}. It was changed after training; take the original file"
        )
    return merged


def rename(key: str, renames: Renames) -> str:
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
