"""Confusion counts of each image, and the figures made of them.

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


def confusion_counts(pred: Tensor, target: Tensor, *, num_classes: int = 1) -> Tensor:
    """Count true and false positives and negatives of each image.

    Args:
        pred: (b, h, w) or (b, 1, h, w): lesion or not (bool, or 0 and 1), or class indices 0..k-1.
        target: The same of the truth; with several classes 255 is not counted.
        num_classes: 1 for lesion or not, else k.
    Returns:
        int64 (b, 4) holding tp, fp, fn, tn; with several classes (b, k-1, 4) for the classes 1..k-1.
    Raises:
        ValueError: Shapes differ, or values lie outside the classes.
    """
    if pred.shape != target.shape:
        raise ValueError(f"prediction and truth differ in shape: {tuple(pred.shape)} and {tuple(target.shape)}")
    last = max(num_classes - 1, 1)
    for name, values in (("prediction", pred), ("truth", target)):
        outside = (values < 0) | (values > last)
        if name == "truth" and num_classes > 1:
            outside &= values != IGNORE_INDEX
        if values.dtype != torch.bool and bool(outside.any()):
            raise ValueError(f"the {name} holds values outside 0..{last}, such as {values[outside][0].item()}")
    pred, target = pred.flatten(1), target.flatten(1)
    counted = target != IGNORE_INDEX if num_classes > 1 else torch.ones_like(target, dtype=torch.bool)
    scored = range(1, last + 1)
    counts = torch.stack([_binary_counts(pred == value, target == value, counted) for value in scored], dim=1)
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


def _binary_counts(pred: Tensor, target: Tensor, counted: Tensor) -> Tensor:
    masks = (pred & target, pred & ~target, ~pred & target, ~pred & ~target)
    return torch.stack([(mask & counted).sum(dim=1) for mask in masks], dim=-1)


def _ratio(part: Tensor, whole: Tensor) -> Tensor:
    return torch.where(whole > 0, part / whole.clamp_min(1), 1.0)
