"""From uint8 to what a network sees: float, normalisation, and one random plane motion a sample.

All randomness of an epoch is drawn on the CPU as one 2 x 2 matrix a sample, so that every device sees the same images:
they differ where a pixel's source is halfway between two others. The work is done by `mhsvm.ops.fused.prepare_batch`.
Shape letters: b batch, n samples, h w map, k classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mhsvm.ops.fused.prepare_batch import ChannelStatistics, minmax, prepare_batch
from mhsvm.registry import Registry

NORMALIZATIONS: Registry[Callable[[Tensor], Tensor]] = Registry("normalization")
AUGMENTATIONS: Registry[Callable[[int, Generator], Tensor]] = Registry("augmentation")


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
        backend: As in `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: A name is unknown, or soft targets are requested of class indices.
    """

    def __init__(
        self,
        *,
        normalization: str = "minmax",
        augmentation: str = "none",
        num_classes: int = 1,
        soft_targets: bool = False,
        backend: str = "auto",
    ) -> None:
        if soft_targets and num_classes > 1:
            raise ValueError("soft targets need masks of one class; class indices have no soft edge")
        self.normalize = NORMALIZATIONS[normalization]
        self.draw_motions = AUGMENTATIONS[augmentation]
        self.num_classes = num_classes
        self.soft_targets = soft_targets
        self.backend = backend

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
        return prepare_batch(
            images,
            masks,
            motions,
            normalize=self.normalize,
            num_classes=self.num_classes,
            soft_targets=self.soft_targets,
            backend=self.backend,
        )


NORMALIZATIONS.add("minmax", minmax)
# Of ImageNet's images.
NORMALIZATIONS.add("imagenet", ChannelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))


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
