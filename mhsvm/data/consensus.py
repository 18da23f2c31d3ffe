"""One mask from the masks of several raters.

Shape letters: r raters, h w size in pixels, k classes.
"""

import importlib.util
from collections.abc import Sequence

import numpy as np

IGNORE = 255
# The algorithm converges long before; without a limit, a case that alternates would never end.
_MOST_STEPS = 1000
# A tie, such as of two raters one of whom has marked nothing, has a probability of 0.5 but for rounding.
_ROUNDING = 1e-6


def majority_mask(masks: np.ndarray, num_classes: int = 1) -> np.ndarray:
    """Take the class that most raters have chosen, pixel by pixel.

    A pixel is lesion if more than half of the raters have marked it, so that it is background where they are divided
    equally. With several classes, it is the class with the most votes, the lowest one where several have as many; a
    rater's ignored pixels are no votes, and a pixel without a vote is ignored.

    Args:
        masks: uint8 (r, h, w), at least one mask: 0 and 1, or class indices and 255 = ignore.
        num_classes: 1, or k.
    Returns:
        uint8 (h, w), like each of the masks.
    """
    if num_classes == 1:
        return (2 * (masks > 0).sum(axis=0) > len(masks)).astype(np.uint8)
    votes = np.stack([(masks == label).sum(axis=0) for label in range(num_classes)])
    return np.where(votes.any(axis=0), votes.argmax(axis=0), IGNORE).astype(np.uint8)


def staple_mask(masks: np.ndarray) -> np.ndarray:
    """Estimate the lesion and the reliability of each rater together, and take the pixels that are more likely lesion.

    Pixels count as lesion above a probability of 0.5, so that a tie is background. Equal masks are their own consensus:
    without a pixel of lesion, or with nothing else, SimpleITK returns no numbers.

    Args:
        masks: uint8 or bool (r, h, w), at least one mask, not 0 in the lesion.
    Returns:
        uint8 (h, w), 0 and 1.
    Raises:
        ImportError: SimpleITK is not installed.
    Source: Warfield et al. 2004, "STAPLE", IEEE Transactions on Medical Imaging 23, in SimpleITK, with its
        defaults: the prior is the mean fraction of lesion in the whole image.
    """
    lesions = (np.asarray(masks) > 0).astype(np.uint8)
    if (lesions == lesions[0]).all():
        return lesions[0]
    # imported here because it is optional
    sitk = _simple_itk()
    staple = sitk.STAPLEImageFilter()
    staple.SetForegroundValue(1.0)
    staple.SetMaximumIterations(_MOST_STEPS)
    staple.SetNumberOfThreads(1)
    # a copy, because a view would outlive its image
    probability = sitk.GetArrayFromImage(staple.Execute([sitk.GetImageFromArray(lesion) for lesion in lesions]))
    return (probability > 0.5 + _ROUNDING).astype(np.uint8)


def staple_missing() -> str | None:
    """The package that STAPLE needs, with the command that installs it; None if it is there."""
    if importlib.util.find_spec("SimpleITK") is not None:
        return None
    return "STAPLE needs the package SimpleITK: pip install 'mhsvm[raters]'"


def _simple_itk():  # type: ignore[no-untyped-def]  # a module without types
    missing = staple_missing()
    if missing is not None:
        raise ImportError(missing)
    import SimpleITK

    return SimpleITK


def as_labels(masks: np.ndarray, num_classes: int) -> np.ndarray:
    """Turn stored masks into labels: lesion at half coverage and above; class indices stay as they are."""
    return (masks >= 128).astype(np.uint8) if num_classes == 1 else masks


def as_stored(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Turn labels into the form of stored masks."""
    return labels * np.uint8(255) if num_classes == 1 else labels


def consensus_names(num_classes: int) -> Sequence[str]:
    """The ways to make one mask of several."""
    return ("majority", "staple") if num_classes == 1 else ("majority",)


def consensus_mask(name: str, masks: np.ndarray, num_classes: int = 1) -> np.ndarray:
    """The result of `majority_mask` or `staple_mask`, by name."""
    return staple_mask(masks) if name == "staple" else majority_mask(masks, num_classes)
