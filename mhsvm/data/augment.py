"""Prepare batches for a network: conversion to float, normalization, and a random affine transform per sample.

The transforms of an epoch are sampled on the CPU, as a 2 x 2 matrix per sample, so that every device computes the same
images. They can differ at pixels whose source is halfway between two pixels. `mhsvm.ops.fused.prepare_batch` does the
work.
Shape letters: b batch, n samples, h w size, k classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Generator, Tensor

from mhsvm.ops.fused.prepare_batch import ChannelStatistics, minmax, prepare_batch
from mhsvm.registry import Registry

Normalization = Callable[[Tensor], Tensor]
Augmentation = Callable[[int, Generator], Tensor]

NORMALIZATIONS: Registry[Normalization] = Registry("normalization")
AUGMENTATIONS: Registry[Augmentation] = Registry("augmentation")


def register_normalization(name: str) -> Callable[[Normalization], Normalization]:
    """Register a function from float images (b, 3, h, w) in 0..255 to network inputs."""
    return NORMALIZATIONS.register(name)


def register_augmentation(name: str) -> Callable[[Augmentation], Augmentation]:
    """Register a function (n, generator) -> matrices (n, 2, 2) that transform points (x right, y down)."""
    return AUGMENTATIONS.register(name)


def list_normalizations() -> tuple[str, ...]:
    """Names that `Augment(normalization=…)` takes."""
    return tuple(sorted(NORMALIZATIONS))


def list_augmentations() -> tuple[str, ...]:
    """Names that `Augment(augmentation=…)` takes."""
    return tuple(sorted(AUGMENTATIONS))


class Augment:
    """Turn uint8 batches into network inputs and targets, with affine transforms from `sample_transforms` or without.

    Args:
        normalization: A name from `list_normalizations()`.
        augmentation: A name from `list_augmentations()`.
        num_classes: 1 for coverage masks; several for class indices.
        soft_targets: Keep fractional coverage in the target; otherwise a target is 1 from half coverage on.
        backend: As in `mhsvm.ops.selective_scan`.
    Raises:
        ValueError: A name is unknown, or soft targets are requested for class indices.
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
            raise ValueError("soft targets require masks of one class; class indices have no fractional coverage")
        self.normalize = NORMALIZATIONS[normalization]
        self._sample = AUGMENTATIONS[augmentation]
        self.num_classes = num_classes
        self.soft_targets = soft_targets
        self.backend = backend

    def sample_transforms(self, num_samples: int, generator: Generator) -> Tensor:
        """Sample an affine transform per image, float32 (n, 2, 2) on the CPU."""
        return self._sample(num_samples, generator).float()

    def __call__(self, images: Tensor, masks: Tensor, transforms: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Normalize and transform a batch.

        Args:
            images: uint8 (b, 3, h, w).
            masks: uint8 (b, h, w).
            transforms: (b, 2, 2) from `sample_transforms`; None keeps the images as they are.
        Returns:
            Inputs, float32 (b, 3, h, w), and targets, float32 (b, 1, h, w) in 0..1 for one class, or int64 (b, h, w)
            for several.
        """
        return prepare_batch(
            images,
            masks,
            transforms,
            normalize=self.normalize,
            num_classes=self.num_classes,
            soft_targets=self.soft_targets,
            backend=self.backend,
        )


NORMALIZATIONS.add("minmax", minmax)
# Statistics of ImageNet's images.
NORMALIZATIONS.add("imagenet", ChannelStatistics(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)))


@register_augmentation("none")
def none(num_samples: int, generator: Generator) -> Tensor:
    """Keep every image as it is."""
    return torch.eye(2, dtype=torch.float64).repeat(num_samples, 1, 1)


@register_augmentation("ultralight")
def ultralight(num_samples: int, generator: Generator) -> Tensor:
    """With p 0.5, rotate by a multiple of 90 degrees and flip one axis; with p 0.5, rotate by 20..79 whole degrees."""
    turn = _rotation(90 * torch.randint(4, (num_samples,), generator=generator))
    horizontal = _coin(num_samples, generator)
    turn_and_flip = _where(_coin(num_samples, generator), _flip(horizontal, ~horizontal) @ turn)
    rotation = _rotation(torch.randint(20, 80, (num_samples,), generator=generator))
    return _where(_coin(num_samples, generator), rotation) @ turn_and_flip


@register_augmentation("vmunet")
def vmunet(num_samples: int, generator: Generator) -> Tensor:
    """Flip horizontally with p 0.5, flip vertically with p 0.5, and rotate by [0, 360) degrees with p 0.5."""
    flip = _flip(_coin(num_samples, generator), _coin(num_samples, generator))
    rotation = _rotation(360 * torch.rand(num_samples, generator=generator, dtype=torch.float64))
    return _where(_coin(num_samples, generator), rotation) @ flip


def _coin(num_samples: int, generator: Generator) -> Tensor:
    return torch.rand(num_samples, generator=generator) < 0.5


def _where(chosen: Tensor, transforms: Tensor) -> Tensor:
    return torch.where(chosen[:, None, None], transforms, torch.eye(2, dtype=transforms.dtype))


def _flip(horizontal: Tensor, vertical: Tensor) -> Tensor:
    return torch.diag_embed(1.0 - 2.0 * torch.stack([horizontal, vertical], dim=-1).double())


def _rotation(degrees: Tensor) -> Tensor:
    """Rotation matrices (n, 2, 2), exact for multiples of 90 degrees."""
    quarter, rest = torch.div(degrees, 90, rounding_mode="floor"), (degrees % 90).double() * (math.pi / 180)
    cos, sin = rest.cos(), rest.sin()
    for _ in range(3):
        turn = quarter > 0
        cos, sin = torch.where(turn, -sin, cos), torch.where(turn, cos, sin)
        quarter = quarter - 1
    return torch.stack([torch.stack([cos, -sin], -1), torch.stack([sin, cos], -1)], -2)
