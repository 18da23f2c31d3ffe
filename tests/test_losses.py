"""The losses, against their formulas written out pixel by pixel."""

import math

import pytest
import torch
from torch.nn import functional as F

from mhsvm.losses import BCEDiceLoss, CEDiceLoss, create_loss, list_losses


def binary_loss_by_hand(logits, targets, bce_weight=1.0, dice_weight=1.0, smooth=1.0):
    """Mean cross-entropy of all pixels, and of each image 1 - (2 sum(p t) + s) / (sum(p) + sum(t) + s)."""
    nats, dice_losses = [], []
    for image, target in zip(logits.double(), targets.double(), strict=True):
        p, t = torch.sigmoid(image), target
        nats.append(-(t * p.log() + (1 - t) * (1 - p).log()).mean())
        dice_losses.append(1 - (2 * (p * t).sum() + smooth) / (p.sum() + t.sum() + smooth))
    return (bce_weight * sum(nats) + dice_weight * sum(dice_losses)) / len(logits)


def several_classes_loss_by_hand(logits, targets, smooth=1.0):
    """Cross-entropy and the Dice of classes 1..k-1, both of the pixels that are not 255, image by image."""
    losses = []
    for image, target in zip(logits.double(), targets, strict=True):
        counted = target != 255
        p, t = image.softmax(dim=0)[:, counted], target[counted]
        nats = -sum(p[label, place].log() for place, label in enumerate(t.tolist())) / max(len(t), 1)
        dice = 0.0
        for label in range(1, len(image)):
            truth = (t == label).double()
            dice += 1 - (2 * (p[label] * truth).sum() + smooth) / (p[label].sum() + truth.sum() + smooth)
        losses.append(nats + dice / (len(image) - 1))
    return sum(losses) / len(losses)


@pytest.fixture
def logits():
    return 3 * torch.randn(3, 1, 6, 5, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def class_case():
    generator = torch.Generator().manual_seed(1)
    targets = torch.randint(4, (3, 6, 5), generator=generator)
    targets[0, :2] = 255
    targets[2] = 255
    return 3 * torch.randn(3, 4, 6, 5, generator=generator), targets


@pytest.mark.parametrize("soft", [False, True])
def test_bce_dice_is_its_formula(logits, soft):
    targets = torch.rand(logits.shape, generator=torch.Generator().manual_seed(2))
    targets = targets if soft else targets.round()
    targets[1] = 0  # an image without a lesion
    torch.testing.assert_close(
        BCEDiceLoss()(logits, targets).double(), binary_loss_by_hand(logits, targets), rtol=1e-6, atol=1e-6
    )
    arguments = {"bce_weight": 0.3, "dice_weight": 2.0, "smooth": 1e-3}
    torch.testing.assert_close(
        BCEDiceLoss(**arguments)(logits, targets).double(),
        binary_loss_by_hand(logits, targets, **arguments),
        rtol=1e-6,
        atol=1e-6,
    )


def test_ce_dice_is_its_formula(class_case):
    logits, targets = class_case
    expected = several_classes_loss_by_hand(logits, targets)
    torch.testing.assert_close(CEDiceLoss()(logits, targets).double(), expected, rtol=1e-6, atol=1e-6)


def test_ignored_pixels_have_no_gradient(class_case):
    logits, targets = class_case
    logits.requires_grad_()
    CEDiceLoss()(logits, targets).backward()
    ignored = (targets == 255)[:, None].expand_as(logits)
    assert not logits.grad[ignored].any()
    assert (logits.grad[~ignored] != 0).all()


def test_losses_of_batches_average_by_their_sizes(logits, class_case):
    targets = (logits.flip(0) > 0).float()
    whole = BCEDiceLoss()(logits, targets)
    parts = (BCEDiceLoss()(logits[:1], targets[:1]) + 2 * BCEDiceLoss()(logits[1:], targets[1:])) / 3
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-6)
    logits, targets = class_case
    whole = CEDiceLoss()(logits, targets)
    parts = (CEDiceLoss()(logits[:1], targets[:1]) + 2 * CEDiceLoss()(logits[1:], targets[1:])) / 3
    torch.testing.assert_close(whole, parts, rtol=1e-6, atol=1e-6)


def test_a_perfect_prediction_costs_nothing():
    truth = torch.tensor([[0, 1, 1], [0, 0, 1]])
    assert BCEDiceLoss()((truth[None, None] * 200.0 - 100), truth[None, None].float()).item() == pytest.approx(
        0, abs=1e-6
    )
    logits = 100.0 * F.one_hot(truth, 3).permute(2, 0, 1)[None]
    assert CEDiceLoss()(logits, truth[None]).item() == pytest.approx(0, abs=1e-6)


def test_gradients_in_float64(logits, class_case):
    targets = torch.rand(logits.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: BCEDiceLoss()(x, targets), logits.double().requires_grad_())
    logits, targets = class_case
    assert torch.autograd.gradcheck(lambda x: CEDiceLoss()(x, targets), logits.double().requires_grad_())


def test_float64_is_not_rounded(logits):
    targets = (logits > 0.5).double()
    loss = BCEDiceLoss()(logits.double(), targets)
    assert loss.dtype == torch.float64
    torch.testing.assert_close(loss, binary_loss_by_hand(logits, targets), rtol=1e-12, atol=0)


def test_bfloat16_logits_are_added_up_in_float32(class_case):
    # ln 2 a pixel; adding up 65,536 of them in bfloat16 would not come near
    logits = torch.zeros(1, 1, 256, 256, dtype=torch.bfloat16)
    loss = BCEDiceLoss(dice_weight=0)(logits, torch.zeros(1, 1, 256, 256))
    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(math.log(2), rel=1e-6)
    logits, targets = class_case
    loss = CEDiceLoss()(logits.bfloat16(), targets)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, CEDiceLoss()(logits.bfloat16().float(), targets), rtol=1e-6, atol=0)


def test_losses_by_name():
    assert list_losses() == ("bce_dice", "ce_dice")
    loss = create_loss("bce_dice", dice_weight=0.5)
    assert (type(loss), loss.dice_weight) == (BCEDiceLoss, 0.5)
    with pytest.raises(ValueError, match="unknown loss 'focal'; known: bce_dice, ce_dice"):
        create_loss("focal")
