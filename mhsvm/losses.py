"""Training losses. All take logits, and every sample counts alike: losses of batches average by their sizes.

Shape letters: b batch, h w map, k classes.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mhsvm.metrics.counts import IGNORE_INDEX
from mhsvm.ops.fused.bce_dice import bce_dice
from mhsvm.registry import Registered, Registry
from mhsvm.system import name_user

LOSSES: Registry[Callable[..., nn.Module]] = Registry("loss")


def register_loss(name: str) -> Callable[[Registered], Registered]:
    """Register a module (logits, targets) -> scalar under a name for `create_loss`.

    An attribute `several_classes` says whether it takes class indices (b, h, w) or lesion masks (b, 1, h, w); a loss
    without it takes both. The arguments of the constructor have defaults, which a config shows.

    Raises:
        ValueError: The name is taken.
    """
    return LOSSES.register(name)


def list_losses() -> tuple[str, ...]:
    """Names that `create_loss` takes."""
    return tuple(sorted(LOSSES))


def create_loss(name: str, **arguments: float) -> nn.Module:
    """Build a registered loss.

    Raises:
        ValueError: The name is unknown.
    """
    return LOSSES[name](**arguments)


@register_loss("bce_dice")
class BCEDiceLoss(nn.Module):
    """Binary cross-entropy plus Dice; Dice per image over all its pixels, then averaged.

    Args:
        bce_weight: Weight of the cross-entropy.
        dice_weight: Weight of the Dice loss.
        smooth: Added to numerator and denominator of Dice.
        backend: As in `mhsvm.ops.selective_scan`.
    """

    several_classes = False

    def __init__(
        self,
        *,
        bce_weight: float = 1.0,
        dice_weight: float = 1.0,
        smooth: float = 1.0,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.backend = backend
        self.bce_weight = bce_weight
        self.dice_weight = dice_weight
        self.smooth = smooth

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (b, 1, h, w) against targets (b, 1, h, w) in 0..1; see `mhsvm.ops.fused.bce_dice.bce_dice`."""
        return bce_dice(
            logits,
            targets,
            bce_weight=self.bce_weight,
            dice_weight=self.dice_weight,
            smooth=self.smooth,
            backend=self.backend,
        )


@register_loss("ce_dice")
class CEDiceLoss(nn.Module):
    """Cross-entropy plus the mean soft Dice of classes 1..k-1; pixels of class 255 count in neither.

    Args:
        ce_weight: Weight of the cross-entropy.
        dice_weight: Weight of the Dice loss.
        smooth: Added to numerator and denominator of Dice.
    """

    several_classes = True

    def __init__(self, *, ce_weight: float = 1.0, dice_weight: float = 1.0, smooth: float = 1.0) -> None:
        # Importing it takes seconds, and a lesion's loss does without.
        name_user()
        from monai.losses import DiceLoss

        super().__init__()
        self.ce_weight = ce_weight
        self.dice_weight = dice_weight
        self.dice = DiceLoss(include_background=False, smooth_nr=smooth, smooth_dr=smooth)

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Loss of logits (b, k, h, w) against class indices (b, h, w)."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        counted = (targets != IGNORE_INDEX).unsqueeze(1)
        classes = targets.where(counted.squeeze(1), 0)
        nats = F.cross_entropy(logits, classes, reduction="none") * counted.squeeze(1)
        # per image first: an image with many ignored pixels weighs as much as any other
        cross_entropy = (nats.sum(dim=(1, 2)) / counted.sum(dim=(1, 2, 3)).clamp_min(1)).mean()
        truth = F.one_hot(classes, logits.shape[1]).permute(0, 3, 1, 2) * counted
        overlap = self.dice(logits.softmax(dim=1) * counted, truth.to(logits.dtype))
        return self.ce_weight * cross_entropy + self.dice_weight * overlap
