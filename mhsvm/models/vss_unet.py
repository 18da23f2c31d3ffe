"""The U-shaped network of visual state-space blocks that MHS-VM and VM-UNet share.

Source: Ruan & Xiang 2024, arXiv 2402.02491; its parts: arXiv 2401.10166 and 2105.05537.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Size, Tensor, nn

from mhsvm.layers import DropPath, LayerNorm, PatchEmbed, PatchExpand, PatchMerge
from mhsvm.models.image import check_image
from mhsvm.models.weight_format import Renames, Shapes, TensorSource, rename

PATCH_SIZE = 4
SMALL = {"dims": (8, 16), "depths": (1, 2), "decoder_depths": (2, 1), "d_state": 4}

# All keys of the published files start with it.
PUBLISHED_PREFIX = "vmunet."

_PUBLISHED: Renames = (
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
# Parameters of a scan along routes. Ours are stacked over the heads; in some, the files join routes and channels.
_SCAN = {
    "x_proj": "x_proj_weight",
    "dt_proj": "dt_projs_weight",
    "dt_bias": "dt_projs_bias",
    "A_log": "A_logs",
    "D": "Ds",
}
_JOINED = ("A_log", "D")


class VSSBlock(nn.Module):
    """x + DropPath(mixer(LayerNorm(x))) on a map (b, h, w, c). The mixer starts with a linear layer."""

    def __init__(self, channels: int, *, mixer: nn.Module, drop_path: float, backend: str = "auto") -> None:
        super().__init__()
        self.norm = LayerNorm(channels, autocast_output=True, backend=backend)
        self.mixer = mixer
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mixer(self.norm(x)))


class ParallelBlocks(nn.Module):
    """Blocks that take an equal slice of the channels each; their outputs are concatenated.

    Args:
        parts: One block for each slice; or one alone, which all slices share as one batch.
        branches: Number of slices p.
    Source: Wu et al. 2024, arXiv 2403.20035, which shares a Mamba block in this way.
    """

    def __init__(self, parts: Sequence[VSSBlock], *, branches: int) -> None:
        super().__init__()
        self.branches = branches
        self.parts = nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, h, w, c) -> (b, h, w, c)."""
        if len(self.parts) > 1:
            slices = x.chunk(self.branches, dim=-1)
            return torch.cat([part(each) for part, each in zip(self.parts, slices, strict=True)], dim=-1)
        slices = x.unflatten(3, (self.branches, -1)).movedim(3, 1).flatten(0, 1)  # (b*p, h, w, c/p)
        return self.parts[0](slices).unflatten(0, (-1, self.branches)).movedim(1, 3).flatten(3)


class VSSUNet(nn.Module):
    """Patch embedding, encoder, decoder and head; decoder stages add the input of the encoder stage of their size.

    Args:
        mixer: Makes the residual branch of a block: channels c -> a module (b, h, w, c) -> (b, h, w, c).
        num_classes: Channels of the output.
        in_channels: Channels of the image.
        dims: Channels of each stage: the first a multiple of 4, each further one twice the previous one.
        depths: Blocks of each encoder stage.
        decoder_depths: Blocks of each decoder stage, from the bottom up.
        drop_path_rate: Rate of dropped branches in the last encoder block. The rate grows linearly from 0 over the
            encoder and falls back to 0 over the decoder.
        branches: Slices of the channels that each block's norm and mixer take apart, see `ParallelBlocks`; a divisor
            of the first of dims. The mixers have c / branches channels.
        share_branches: Whether the slices share one block, or each has a block of its own.
        backend: Backend of the layers around the mixers, see `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: The stages do not fit together, or an image has another shape.
    """

    def __init__(
        self,
        *,
        mixer: Callable[[int], nn.Module],
        num_classes: int,
        in_channels: int,
        dims: Sequence[int],
        depths: Sequence[int],
        decoder_depths: Sequence[int],
        drop_path_rate: float,
        branches: int = 1,
        share_branches: bool = True,
        backend: str,
    ) -> None:
        super().__init__()
        check_stages(dims, depths, decoder_depths)
        if branches < 1 or dims[0] % branches:
            raise ValueError(
                f"branches divides the first of dims; received branches={branches}, dims={tuple(dims)}. "
                f"Use a divisor of {dims[0]}"
            )
        self.branches = branches
        self.in_channels = in_channels
        self.stride = PATCH_SIZE * 2 ** (len(dims) - 1)

        def block(channels: int, rate: float) -> VSSBlock:
            return VSSBlock(channels, mixer=mixer(channels), drop_path=rate, backend=backend)

        def blocks(channels: int, rates: Sequence[float]) -> nn.Sequential:
            if branches == 1:
                return nn.Sequential(*(block(channels, rate) for rate in rates))
            num_parts = 1 if share_branches else branches
            parts = ([block(channels // branches, rate) for _ in range(num_parts)] for rate in rates)
            return nn.Sequential(*(ParallelBlocks(each, branches=branches) for each in parts))

        rising = torch.linspace(0, drop_path_rate, sum(depths)).split(list(depths))
        falling = torch.linspace(0, drop_path_rate, sum(decoder_depths)).flip(0).split(list(decoder_depths))

        self.patch_embed = PatchEmbed(in_channels, dims[0], patch_size=PATCH_SIZE, backend=backend)
        self.encoder = nn.ModuleList()
        for i, (channels, rates) in enumerate(zip(dims, rising, strict=True)):
            stage: OrderedDict[str, nn.Module] = OrderedDict(blocks=blocks(channels, rates.tolist()))
            if i < len(dims) - 1:
                stage["merge"] = PatchMerge(channels, backend=backend)
            self.encoder.append(nn.Sequential(stage))
        self.decoder = nn.ModuleList()
        for i, (channels, rates) in enumerate(zip(reversed(dims), falling, strict=True)):
            stage = OrderedDict()
            if i > 0:
                stage["expand"] = PatchExpand(2 * channels, factor=2, backend=backend)
            stage["blocks"] = blocks(channels, rates.tolist())
            self.decoder.append(nn.Sequential(stage))
        self.head_expand = PatchExpand(dims[0], factor=PATCH_SIZE, autocast_output=True, backend=backend)
        self.head = nn.Conv2d(dims[0] // PATCH_SIZE, num_classes, kernel_size=1)
        self.apply(init_weights)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile as `torch.nn.Module.compile`, but part by part: blocks of the same width share their code.

        Compiled as a whole, every block would be compiled separately, and steps would not be faster.
        """
        for module in self.modules():
            if isinstance(module, VSSBlock | PatchEmbed | PatchMerge | PatchExpand):
                module.compile(*args, **kwargs)

    def forward(self, image: Tensor) -> Tensor:
        """Image (b, in_channels, H, W) -> logits (b, num_classes, H, W); H, W multiples of `stride`."""
        x = self.patch_embed(check_image(image, in_channels=self.in_channels, stride=self.stride))
        stage_inputs = []
        for stage in self.encoder:
            stage_inputs.append(x)
            x = stage(x)
        x = self.decoder[0](x)
        for stage in self.decoder[1:]:
            x = stage(x + stage_inputs.pop())
        return self.head(self.head_expand(x).permute(0, 3, 1, 2))


def check_stages(dims: Sequence[int], depths: Sequence[int], decoder_depths: Sequence[int]) -> None:
    if not dims or not len(dims) == len(depths) == len(decoder_depths):
        raise ValueError(
            "dims, depths and decoder_depths name one number a stage; received "
            f"dims={tuple(dims)}, depths={tuple(depths)}, decoder_depths={tuple(decoder_depths)}"
        )
    if dims[0] < PATCH_SIZE or dims[0] % PATCH_SIZE:
        raise ValueError(f"the first of dims must be a multiple of {PATCH_SIZE}; received {tuple(dims)}")
    doubled = tuple(dims[0] * 2**i for i in range(len(dims)))
    if tuple(dims) != doubled:
        raise ValueError(f"each of dims is twice the previous one; received {tuple(dims)}, expected {doubled}")
    if min(*depths, *decoder_depths) < 1:
        raise ValueError(
            "every stage has at least one block; received "
            f"depths={tuple(depths)}, decoder_depths={tuple(decoder_depths)}"
        )


def init_weights(module: nn.Module) -> None:
    """Initialize a linear layer; convolutions, norms and scans keep the values of their constructors."""
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def published_sources(model: nn.Module, *, heads: Sequence[str], routes: Sequence[int]) -> dict[str, TensorSource]:
    """The source of each entry of a state dict in the published files.

    Args:
        model: MHS-VM or VM-UNet.
        heads: Path of each head's scan below a block's attention, such as "mhs.scanhead_C.mambaeng."; "" for a scan
            without heads.
        routes: Index in the file of each of our routes.
    """
    sources = {}
    for key, value in model.state_dict().items():
        block, is_scan, parameter = key.partition(".mixer.scan.s6.")
        if not is_scan:
            sources[key] = TensorSource((rename(key, _PUBLISHED),), value.shape, value.shape)
            continue
        shape = value.shape[1:]
        if parameter in _JOINED:
            shape = Size((shape[0] * shape[1], *shape[2:]))
        attention = rename(block + ".mixer.", _PUBLISHED)
        keys = tuple(f"{attention}{head}{_SCAN[parameter]}" for head in heads)
        sources[key] = TensorSource(keys, shape, value.shape, routes)
    return sources


def published_arguments(shapes: Shapes) -> dict[str, Any]:
    """The arguments of `VSSUNet` that the shapes of a published file determine."""
    depths = _depths("layers", shapes)
    return {
        "num_classes": shapes["final_conv.weight"][0],
        "in_channels": shapes["patch_embed.proj.weight"][1],
        "dims": tuple(shapes[f"layers.{i}.blocks.0.ln_1.weight"][0] for i in range(len(depths))),
        "depths": depths,
        "decoder_depths": _depths("layers_up", shapes),
    }


def _depths(stages: str, shapes: Shapes) -> tuple[int, ...]:
    blocks = {
        (int(match[1]), int(match[2]))
        for match in (re.match(rf"{stages}\.(\d+)\.blocks\.(\d+)\.", key) for key in shapes)
        if match
    }
    num_stages = 1 + max((stage for stage, _ in blocks), default=-1)
    return tuple(sum(stage == i for stage, _ in blocks) for i in range(num_stages))
