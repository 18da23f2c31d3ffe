"""Evaluation: every image once, counts and loss independent of the batches."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.evaluator import Evaluator, evaluate_model, target_masks
from mhsvm.inference.probability import check_finite, probabilities, to_mask
from mhsvm.losses import BCEDiceLoss, CEDiceLoss, create_loss
from mhsvm.metrics import confusion_counts, summarize

CPU = torch.device("cpu")


class FirstChannel(nn.Module):
    """Logits are the first channel of the input, spread about 0."""

    def forward(self, inputs):
        return inputs[:, :1] / 25 - 5


class ThreeClasses(nn.Module):
    """Logits of three classes are the three channels of the input."""

    def forward(self, inputs):
        return inputs / 50


@pytest.fixture
def images():
    return torch.randint(256, (7, 8, 6, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def lesions(images):
    masks = torch.randint(256, (7, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    return Dataset(ids=tuple("abcdefg"), images=images, masks=masks)


def run(dataset, model, loss, **changes):
    arguments = {"threshold": 0.5, "batch_size": 3, "device": CPU} | changes
    augment = Augment(num_classes=dataset.num_classes)
    return evaluate_model(model, dataset, augment=augment, loss=loss, **arguments)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_every_image_counts_once_whatever_the_batch(lesions, batch_size):
    evaluation = run(lesions, FirstChannel(), BCEDiceLoss(), batch_size=batch_size)
    inputs, targets = Augment()(lesions.images.permute(0, 3, 1, 2), lesions.masks)
    logits = FirstChannel()(inputs)
    expected = confusion_counts(logits.sigmoid()[:, 0] >= 0.5, lesions.masks >= 128)
    assert evaluation.ids == lesions.ids
    assert torch.equal(evaluation.counts[:, 0], expected)
    assert evaluation.counts.sum(dim=-1).tolist() == [[48]] * 7
    losses = [BCEDiceLoss()(logits[row : row + 1], targets[row : row + 1]).item() for row in range(7)]
    assert evaluation.loss == pytest.approx(sum(losses) / 7, rel=1e-6)
    assert evaluation.metrics() == {"loss": evaluation.loss, **summarize(expected)}


def test_several_classes_and_ignored_pixels(images):
    masks = torch.randint(3, (7, 8, 6), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    masks[0, :4] = 255
    dataset = Dataset(ids=tuple("abcdefg"), images=images, masks=masks, num_classes=3)
    evaluation = run(dataset, ThreeClasses(), CEDiceLoss())
    inputs, targets = Augment(num_classes=3)(images.permute(0, 3, 1, 2), masks)
    pred = inputs.argmax(dim=1)
    assert evaluation.confusion.shape == (7, 3, 3)
    assert evaluation.confusion.sum(dim=(1, 2)).tolist() == [24, *[48] * 6]
    assert torch.equal(evaluation.counts, confusion_counts(pred, targets, num_classes=3))
    assert evaluation.loss == pytest.approx(CEDiceLoss()(inputs / 50, targets).item(), rel=1e-6)


def test_each_batch_is_handed_on_with_its_rows(lesions):
    seen = []
    run(lesions, FirstChannel(), BCEDiceLoss(), on_batch=lambda rows, maps: seen.append((rows, maps)))
    assert [rows.tolist() for rows, _ in seen] == [[0, 1, 2], [3, 4, 5], [6]]
    inputs, _ = Augment()(lesions.images.permute(0, 3, 1, 2), lesions.masks)
    torch.testing.assert_close(torch.cat([maps for _, maps in seen]), FirstChannel()(inputs).sigmoid())


def test_the_model_evaluates_in_evaluation_mode_without_gradients(lesions):
    class Watching(FirstChannel):
        def forward(self, inputs):
            assert not self.training
            assert not torch.is_grad_enabled()
            return super().forward(inputs)

    model = Watching().train()
    run(lesions, model, BCEDiceLoss())
    assert not model.training


def test_the_threshold_itself_is_lesion():
    maps = torch.tensor([0.2999, 0.3, 0.5, 0.0]).view(1, 1, 2, 2)
    assert to_mask(maps, 0.3).tolist() == [[[0, 1], [1, 0]]]
    assert to_mask(maps, 0.5).tolist() == [[[0, 0], [1, 0]]]
    assert to_mask(maps, 0.5).dtype == torch.uint8


def test_a_lower_threshold_finds_more(lesions):
    low, high = (run(lesions, FirstChannel(), BCEDiceLoss(), threshold=value).counts for value in (0.1, 0.9))
    assert (low[..., :2].sum(-1) > high[..., :2].sum(-1)).all()


def test_several_classes_take_the_likeliest():
    logits = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]).view(1, 3, 1, 2)
    maps = probabilities(logits)
    torch.testing.assert_close(maps, F.softmax(logits, dim=1))
    assert to_mask(maps, 0.99).tolist() == [[[1, 2]]]


def test_probabilities_of_16_bit_logits_are_float32():
    logits = torch.tensor([-1.0, 0.0, 9.0]).view(1, 1, 1, 3).bfloat16()
    torch.testing.assert_close(probabilities(logits), logits.float().sigmoid(), rtol=0, atol=0)


def test_truth_is_lesion_from_half_coverage_on():
    masks = torch.tensor([0, 127, 128, 255], dtype=torch.uint8)
    assert target_masks(masks, 1).tolist() == [0, 0, 1, 1]
    assert target_masks(masks, 3) is masks


def test_broken_weights_are_named():
    check_finite(torch.tensor([0.0, 1.0]))
    with pytest.raises(ValueError, match="the model's output is not finite: its weights have diverged"):
        check_finite(torch.tensor([0.5, float("nan")]))


@pytest.mark.parametrize("tf32", [False, True])
def test_products_are_rounded_as_in_the_training(tf32):
    evaluator = Evaluator(
        model=nn.Conv2d(3, 1, 1),
        augment=Augment(),
        loss=create_loss("bce_dice"),
        threshold=0.5,
        batch_size=1,
        device=CPU,
        tf32=tf32,
    )
    dataset = Dataset(("a",), torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.uint8))
    before, seen = torch.backends.cudnn.allow_tf32, []
    evaluator(
        dataset, lambda *batch: seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
    )
    assert seen == [(tf32, tf32)]
    assert torch.backends.cudnn.allow_tf32 == before
