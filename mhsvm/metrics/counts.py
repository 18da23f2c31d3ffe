"""Confusion matrices and counts of each image, and its figures.

A figure whose denominator is zero is 1, the rule of the package isic-challenge-scoring: nothing was there to
miss.
Shape letters: b images, h w map, k classes, c scored classes (1, or k - 1 without the background).
"""

import torch
from torch import Tensor

IGNORE_INDEX = 255
PER_IMAGE = ("jaccard", "dice", "accuracy", "sensitivity", "specificity")


def confusion_matrices(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Count the pixels of each image by what they are and what they were taken for.

    Args:
        pred: (b, h, w) or (b, 1, h, w): lesion or not (bool, or 0 and 1), or class indices 0..k-1.
        target: The same of the truth; with several classes 255 is not counted.
        num_classes: 1 for lesion or not, else k.
    Returns:
        int64 (b, 2, 2), or (b, k, k) for several classes; rows are the truth, columns the prediction.
    Raises:
        ValueError: Shapes differ, values lie outside the classes or are not whole numbers.
    """
    check_masks(pred, target, num_classes)
    return count_pairs(pred, target, num_classes=num_classes)


def count_pairs(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """The same of masks that are known to be right: nothing is checked, and nobody waits for a GPU."""
    size = max(num_classes, 2)
    matrix = torch.arange(len(target), dtype=torch.int32, device=target.device).view(-1, *[1] * (target.ndim - 1))
    # in place, and in 32 bits: native masks have megapixels
    cells = (matrix * size + target.to(torch.int32)).mul_(size).add_(pred.to(torch.int32))
    num_cells = len(target) * size**2
    if num_classes > 1:
        # behind all others lies a cell for what is not counted
        cells.masked_fill_(target == IGNORE_INDEX, num_cells)
    return _histogram(cells.flatten(), num_cells + 1)[:num_cells].view(-1, size, size)


def check_masks(pred: Tensor, target: Tensor, num_classes: int) -> None:
    """Make sure that prediction and truth can be compared, see `confusion_matrices`.

    Raises:
        ValueError: Shapes differ, values lie outside the classes or are not whole numbers.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction and truth differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    _check_classes("prediction", pred, num_classes)
    # what is ignored is no class of the truth, and never allowed in the masks of one class
    _check_classes("truth", target if num_classes == 1 else target[target != IGNORE_INDEX], num_classes)


def class_counts(matrices: Tensor) -> Tensor:
    """Each class but the background against the rest: matrices (…, k, k) -> tp, fp, fn, tn (…, k-1, 4)."""
    tp = matrices.diagonal(dim1=-2, dim2=-1)
    fp, fn = matrices.sum(dim=-2) - tp, matrices.sum(dim=-1) - tp
    tn = matrices.sum(dim=(-2, -1)).unsqueeze(-1) - tp - fp - fn
    return torch.stack([tp, fp, fn, tn], dim=-1)[..., 1:, :]


def confusion_counts(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Count true and false positives and negatives of each image.

    Args:
        pred, target, num_classes: See `confusion_matrices`.
    Returns:
        int64 (b, 4) holding tp, fp, fn, tn; with several classes (b, k-1, 4) for the classes 1..k-1.
    Raises:
        ValueError: See `confusion_matrices`.
    """
    counts = class_counts(confusion_matrices(pred, target, num_classes=num_classes))
    return counts if num_classes > 1 else counts.squeeze(1)


def truth_pixels(counts: Tensor) -> Tensor:
    """Pixels that are of a class, and that are not, whatever was predicted: counts (…, 4) -> (…, 2)."""
    tp, fp, fn, tn = counts.unbind(-1)
    return torch.stack([tp + fn, fp + tn], dim=-1)


def per_image(counts: Tensor) -> dict[str, Tensor]:
    """Figures of each image under the names `PER_IMAGE`: counts (…, 4) -> float64 (…)."""
    tp, fp, fn, tn = counts.double().unbind(-1)
    return {
        "jaccard": _ratio(tp, tp + fp + fn),
        "dice": _ratio(2 * tp, 2 * tp + fp + fn),
        "accuracy": _ratio(tp + tn, tp + fp + fn + tn),
        "sensitivity": _ratio(tp, tp + fn),
        "specificity": _ratio(tn, tn + fp),
    }


def _check_classes(name: str, values: Tensor, num_classes: int) -> None:
    if values.dtype == torch.bool:
        return
    if values.is_floating_point() and bool((values != values.round()).any()):
        raise ValueError(f"the {name} holds fractions, not classes: apply the threshold or argmax first")
    last = max(num_classes - 1, 1)
    outside = values[(values < 0) | (values > last)]
    if len(outside):
        raise ValueError(f"the {name} holds values outside 0..{last}, such as {outside[0].item()}")


def _histogram(values: Tensor, num: int) -> Tensor:
    """How often each of 0..num-1 is among int32 values (n,)."""
    if not values.is_cuda:
        return torch.bincount(values, minlength=num)
    # there bincount would wait to see the greatest value
    ones = torch.ones((), dtype=torch.int64, device=values.device).expand_as(values)
    return ones.new_zeros(num).scatter_add_(0, values.long(), ones)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)
