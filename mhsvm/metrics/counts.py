"""Confusion matrices, counts and metrics of each image.

A metric with a zero denominator is 1, because there is nothing to miss; the package isic-challenge-scoring has the same
rule.
Shape letters: b batch, h w size, k classes, c scored classes (1, or k - 1 without the background).
"""

import numpy as np
import torch
from torch import Tensor

IGNORE_INDEX = 255
# Metrics of probabilities.
RANKING = ("auc", "average_precision")
PER_IMAGE = ("jaccard", "dice", "accuracy", "sensitivity", "specificity")


def confusion_matrices(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Count the pixels of each image by target and predicted class.

    Args:
        pred: (b, h, w) or (b, 1, h, w): binary masks (bool, or 0 and 1), or class indices 0..k-1.
        target: Targets like `pred`. With several classes, 255 is ignored.
        num_classes: 1 for binary masks, else k.
    Returns:
        int64 (b, 2, 2), or (b, k, k) for several classes. Rows are targets, columns are predictions.
    Raises:
        ValueError: Shapes differ, or values are no classes or no whole numbers.
    """
    check_masks(pred, target, num_classes)
    return count_pairs(pred, target, num_classes=num_classes)


def count_pairs(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Compute `confusion_matrices` for valid masks, without checks and without synchronization."""
    size = max(num_classes, 2)
    matrix = torch.arange(len(target), dtype=torch.int32, device=target.device).view(-1, *[1] * (target.ndim - 1))
    # in place and with 32 bits, because native masks have megapixels
    cells = (matrix * size + target.to(torch.int32)).mul_(size).add_(pred.to(torch.int32))
    num_cells = len(target) * size**2
    if num_classes > 1:
        # ignored pixels go to an extra cell after all others
        cells.masked_fill_(target == IGNORE_INDEX, num_cells)
    return _histogram(cells.flatten(), num_cells + 1)[:num_cells].view(-1, size, size)


def check_masks(pred: Tensor, target: Tensor, num_classes: int) -> None:
    """Check that predictions and targets can be compared, see `confusion_matrices`.

    Raises:
        ValueError: Shapes differ, or values are no classes or no whole numbers.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction and target differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    _check_classes("prediction", pred, num_classes)
    # the ignored value is no class of the targets, and is not allowed in binary masks
    _check_classes("target", target if num_classes == 1 else target[target != IGNORE_INDEX], num_classes)


def check_arrays(pred: np.ndarray, target: np.ndarray, num_classes: int) -> None:
    """Compute `check_masks` for uint8 arrays of one image, in a small part of the time."""
    last = max(num_classes - 1, 1)
    counted = (IGNORE_INDEX,) if num_classes > 1 else ()
    fits = pred.shape == target.shape and (not pred.size or pred.max() <= last)
    if not fits or (target.size and target.max() > last and not set(np.unique(target[target > last])) <= {*counted}):
        check_masks(torch.from_numpy(pred), torch.from_numpy(target), num_classes)


def confusion_array(pred: np.ndarray, target: np.ndarray, *, num_classes: int = 1) -> np.ndarray:
    """Compute `confusion_matrices` of one image from valid masks, uint8 (h, w): int64 (2, 2) or (k, k).

    Small arrays take a fraction of the time of small tensors, whose threads wait for each other.
    """
    if num_classes == 1:
        both, num_pred, num_target = np.count_nonzero(pred & target), np.count_nonzero(pred), np.count_nonzero(target)
        fn, fp = num_target - both, num_pred - both
        return np.array([[pred.size - both - fn - fp, fp], [fn, both]], np.int64)
    # 255 classes at most, so that cells fit 16 bits
    cells = (target.astype(np.uint16) * np.uint16(num_classes) + pred)[target != IGNORE_INDEX]
    return np.bincount(cells, minlength=num_classes**2).astype(np.int64).reshape(num_classes, num_classes)


def class_counts(matrices: Tensor) -> Tensor:
    """Count each class but the background against the rest: matrices (…, k, k) -> tp, fp, fn, tn (…, k-1, 4)."""
    tp = matrices.diagonal(dim1=-2, dim2=-1)
    fp, fn = matrices.sum(dim=-2) - tp, matrices.sum(dim=-1) - tp
    tn = matrices.sum(dim=(-2, -1)).unsqueeze(-1) - tp - fp - fn
    return torch.stack([tp, fp, fn, tn], dim=-1)[..., 1:, :]


def confusion_counts(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Count true and false positives and negatives of each image.

    Args:
        pred, target, num_classes: See `confusion_matrices`.
    Returns:
        int64 (b, 4) with tp, fp, fn, tn; for several classes (b, k-1, 4) with the classes 1..k-1.
    Raises:
        ValueError: See `confusion_matrices`.
    """
    counts = class_counts(confusion_matrices(pred, target, num_classes=num_classes))
    return counts if num_classes > 1 else counts.squeeze(1)


def target_pixels(counts: Tensor) -> Tensor:
    """Target pixels inside and outside a class, independent of the prediction: counts (…, 4) -> (…, 2)."""
    tp, fp, fn, tn = counts.unbind(-1)
    return torch.stack([tp + fn, fp + tn], dim=-1)


def per_image(counts: Tensor) -> dict[str, Tensor]:
    """Metrics of each image by the names `PER_IMAGE`: counts (…, 4) -> float64 (…)."""
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
        raise ValueError(f"the {name} has fractions, not classes: apply the threshold or argmax first")
    last = max(num_classes - 1, 1)
    outside = values[(values < 0) | (values > last)]
    if len(outside):
        raise ValueError(f"the {name} has values outside 0..{last}, such as {outside[0].item()}")


def _histogram(values: Tensor, num: int) -> Tensor:
    """Count each of 0..num-1 among int32 values (n,)."""
    if not values.is_cuda:
        return torch.bincount(values, minlength=num)
    # on a GPU, bincount synchronizes to find the greatest value
    ones = torch.ones((), dtype=torch.int64, device=values.device).expand_as(values)
    return ones.new_zeros(num).scatter_add_(0, values.long(), ones)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)
