"""Confusion matrices and counts of each image, and the figures made of them.

A figure whose denominator is zero is 1, the rule of the package isic-challenge-scoring: nothing was there to
miss.
Shape letters: b images, h w map, k classes, c scored classes (1, or k - 1 without the background).
"""

import torch
from torch import Tensor

IGNORE_INDEX = 255
# Below this Jaccard index the ISIC challenge counts an image as failed.
ISIC_THRESHOLD = 0.65
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
    if pred.shape != target.shape:
        raise ValueError(f"prediction and truth differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    _check_classes("prediction", pred, num_classes)
    # what is ignored is no class of the truth, and never allowed in the masks of one class
    counted = (target != IGNORE_INDEX) | (num_classes == 1)
    _check_classes("truth", target[counted], num_classes)
    size = max(num_classes, 2)
    matrix = torch.arange(len(target), device=target.device).view(-1, *[1] * (target.ndim - 1))
    cells = (matrix * size + target.long()) * size + pred.long()
    return torch.bincount(cells[counted], minlength=len(target) * size**2).view(-1, size, size)


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


def summarize(counts: Tensor) -> dict[str, float]:
    """Sum up a test set.

    Args:
        counts: From `confusion_counts` of all images, (b, 4) or (b, c, 4), b at least 1.
    Returns:
        `miou`, `dsc`, `accuracy`, `sensitivity`, `specificity` of all pixels pooled (one confusion matrix);
        the same names with `_per_image`, averaged over images; `jaccard_thresholded`, the mean over images of a
        Jaccard index that counts 0 below 0.65. With several classes each is the mean over the scored classes.
    Raises:
        ValueError: There is no image.
    """
    if counts.shape[0] == 0:
        raise ValueError("there are no images to sum up")
    pooled, single = per_image(counts.sum(dim=0)), per_image(counts)
    names = {"miou": "jaccard", "dsc": "dice"} | {name: name for name in PER_IMAGE[2:]}
    jaccard = single["jaccard"]
    figures = {name: pooled[figure] for name, figure in names.items()}
    figures |= {f"{name}_per_image": single[figure] for name, figure in names.items()}
    figures["jaccard_thresholded"] = jaccard.where(jaccard >= ISIC_THRESHOLD, 0.0)
    return {name: values.mean().item() for name, values in figures.items()}


def _check_classes(name: str, values: Tensor, num_classes: int) -> None:
    if values.dtype == torch.bool:
        return
    if values.is_floating_point() and bool((values != values.round()).any()):
        raise ValueError(f"the {name} holds fractions, not classes: apply the threshold or argmax first")
    last = max(num_classes - 1, 1)
    outside = values[(values < 0) | (values > last)]
    if len(outside):
        raise ValueError(f"the {name} holds values outside 0..{last}, such as {outside[0].item()}")


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)
