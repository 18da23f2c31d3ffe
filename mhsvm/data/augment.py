"""From uint8 to what a network sees: float, normalisation, and one random plane motion a sample.

All randomness of an epoch is drawn on the CPU as one 2 x 2 matrix a sample, so that every device sees the same images:
they differ where a pixel's source lies halfway between two others. Nothing here waits for a GPU, where all of it can be
one or two kernels, see `mhsvm.ops.fused.prepare_batch`.
Shape letters: b batch, n samples, h w map, k classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from mhsvm.ops.fused.prepare_batch import ChannelStatistics, prepare_batch
from mhsvm.registry import Registry

NORMALIZATIONS: Registry[Callable[[Tensor], Tensor]] = Registry("normalization")
AUGMENTATIONS: Registry[Callable[[int, Generator], Tensor]] = Registry("augmentation")

_IMAGENET = ChannelStatistics(mean=(0.485, 0.456, 0.406), deviation=(0.229, 0.224, 0.225))
# The normalisations that the kernels know, by what they take for them.
_FUSED: dict[str, ChannelStatistics | None] = {"minmax": None, "imagenet": _IMAGENET}


def register_normalization(name: str):
    """Register a function from float images (b, 3, h, w), 0..255, to what a network takes."""
    return NORMALIZATIONS.register(name)


def register_augmentation(name: str):
    """Register a function (n, generator) -> matrices (n, 2, 2) that move points (x right, y down)."""
    return AUGMENTATIONS.register(name)


def list_normalizations() -> tuple[str, ...]:
    """Names that `Augment(normalization=…)` takes."""
    return tuple(sorted(NORMALIZATIONS))


def list_augmentations() -> tuple[str, ...]:
    """Names that `Augment(augmentation=…)` takes."""
    return tuple(sorted(AUGMENTATIONS))


class Augment:
    """Turn uint8 batches into network inputs and targets, moved by the matrices that `draw` made, or unmoved.

    Args:
        normalization: A name from `list_normalizations()`.
        augmentation: A name from `list_augmentations()`.
        num_classes: 1 for coverage masks; several for class indices.
        soft_targets: Keep a coverage mask's soft edge in the target; otherwise it is 1 from half coverage on.
        fused: Take Triton's kernels for batches on a GPU, if they know the normalisation: those that come with mhsvm.
    Raises:
        ValueError: A name is unknown, or soft targets are asked of class indices.
    """

    def __init__(
        self,
        *,
        normalization: str = "minmax",
        augmentation: str = "none",
        num_classes: int = 1,
        soft_targets: bool = False,
        fused: bool = False,
    ) -> None:
        if soft_targets and num_classes > 1:
            raise ValueError("soft targets need masks of one class; class indices have no soft edge")
        self.normalize = NORMALIZATIONS[normalization]
        self.draw_motions = AUGMENTATIONS[augmentation]
        self.num_classes = num_classes
        self.soft_targets = soft_targets
        self._normalization = normalization
        self._fused = fused and normalization in _FUSED

    def draw(self, num_samples: int, generator: Generator) -> Tensor:
        """Motions of `num_samples` images as float32 (n, 2, 2) on the CPU, drawn from `generator`."""
        return self.draw_motions(num_samples, generator).float()

    def __call__(self, images: Tensor, masks: Tensor, motions: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalise, then move.

        Args:
            images: uint8 (b, 3, h, w).
            masks: uint8 (b, h, w).
            motions: (b, 2, 2) from `draw`; None leaves every image where it is.
        Returns:
            Inputs, float32 (b, 3, h, w).
            Targets: float32 (b, 1, h, w) in 0..1 for one class, int64 (b, h, w) for several.
        """
        if self._fused and images.is_cuda:
            return prepare_batch(
                images,
                masks,
                motions,
                statistics=_FUSED[self._normalization],
                num_classes=self.num_classes,
                soft_targets=self.soft_targets,
            )
        inputs, targets = self.normalize(images.float()), masks.float().unsqueeze(1)
        if motions is not None:
            moved = _move(torch.cat([inputs, targets], dim=1), motions.to(inputs.device))
            inputs, targets = moved[:, :-1], moved[:, -1:]
        if self.num_classes > 1:
            return inputs, targets.squeeze(1).long()
        return inputs, targets / 255 if self.soft_targets else (targets >= 128).float()


def _move(maps: Tensor, motions: Tensor) -> Tensor:
    """Move maps (b, c, h, w) about their centre; nearest neighbour, what comes from outside is 0."""
    h, w = maps.shape[-2:]
    # grid_sample wants the way back, in coordinates that run from -1 to 1 along each side; made element by element,
    # since a matrix product may be rounded to fewer bits than a position needs
    back = motions.transpose(1, 2)[:, None, None]
    x = _cell_centres(w, maps).expand(h, w)
    y = _cell_centres(h, maps)[:, None].expand(h, w)
    grid = torch.stack(
        [
            x * back[..., 0, 0] + y * (back[..., 0, 1] * (h / w)),
            x * (back[..., 1, 0] * (w / h)) + y * back[..., 1, 1],
        ],
        dim=-1,
    )
    return F.grid_sample(maps, grid, mode="nearest", padding_mode="zeros", align_corners=False)


def _cell_centres(num_cells: int, like: Tensor) -> Tensor:
    """Coordinates (num_cells,) of the cells of a side that runs from -1 to 1."""
    return (2 * torch.arange(num_cells, dtype=like.dtype, device=like.device) + (1 - num_cells)) / num_cells


@register_normalization("minmax")
def minmax(images: Tensor) -> Tensor:
    """Each image's least value to 0 and its greatest to 255, over all channels; an even image becomes 0."""
    low, high = images.amin(dim=(1, 2, 3), keepdim=True), images.amax(dim=(1, 2, 3), keepdim=True)
    return (images - low) / (high - low).clamp_min(1) * 255


@register_normalization("imagenet")
def imagenet(images: Tensor) -> Tensor:
    """Mean 0 and deviation 1 by ImageNet's channel statistics."""
    # plain numbers, not a tensor: copying one to a GPU would wait for it
    channels = zip(images.unbind(dim=1), *_IMAGENET, strict=True)
    return torch.stack([(channel / 255 - mean) / deviation for channel, mean, deviation in channels], dim=1)


@register_augmentation("none")
def none(num_samples: int, generator: Generator) -> Tensor:
    """Every image stays as it is."""
    return torch.eye(2, dtype=torch.float64).repeat(num_samples, 1, 1)


@register_augmentation("ultralight")
def ultralight(num_samples: int, generator: Generator) -> Tensor:
    """With p 0.5 0..3 quarter turns and a flip of one axis; with p 0.5 a rotation by 20..79 whole degrees."""
    turn = _rotation(90 * torch.randint(4, (num_samples,), generator=generator))
    horizontal = _coin(num_samples, generator)
    turn_and_flip = _where(_coin(num_samples, generator), _flip(horizontal, ~horizontal) @ turn)
    rotation = _rotation(torch.randint(20, 80, (num_samples,), generator=generator))
    return _where(_coin(num_samples, generator), rotation) @ turn_and_flip


@register_augmentation("vmunet")
def vmunet(num_samples: int, generator: Generator) -> Tensor:
    """Horizontal flip with p 0.5, vertical flip with p 0.5, rotation by [0, 360) degrees with p 0.5."""
    flip = _flip(_coin(num_samples, generator), _coin(num_samples, generator))
    rotation = _rotation(360 * torch.rand(num_samples, generator=generator, dtype=torch.float64))
    return _where(_coin(num_samples, generator), rotation) @ flip


def _coin(num_samples: int, generator: Generator) -> Tensor:
    return torch.rand(num_samples, generator=generator) < 0.5


def _where(chosen: Tensor, motions: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None], motions, torch.eye(2, dtype=motions.dtype))


def _flip(horizontal: Tensor, vertical: Tensor) -> Tensor:
    return torch.diag_embed(1.0 - 2.0 * torch.stack([horizontal, vertical], dim=-1).double())


def _rotation(degrees: Tensor) -> Tensor:
    """Matrices (n, 2, 2) of rotations; quarter turns are exact."""
    quarter, rest = torch.div(degrees, 90, rounding_mode="floor"), (degrees % 90).double() * (math.pi / 180)
    cos, sin = rest.cos(), rest.sin()
    for _ in range(3):
        turn = quarter > 0
        cos, sin = torch.where(turn, -sin, cos), torch.where(turn, cos, sin)
        quarter = quarter - 1
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
