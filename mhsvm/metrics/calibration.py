"""Calibration of probabilities, and metrics at other thresholds, from counts collected batch by batch.

scikit-learn's `calibration_curve` takes all pixels at once; here only counts stay in memory.

Shape letters: n images, b batch, k classes, t bins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.metrics.counts import IGNORE_INDEX
from mhsvm.metrics.summary import summarize

NUM_BINS = 20
# Probabilities are summed as integers, so the order of additions does not change the sum.
_UNIT = 2**30


class CalibrationCounts:
    """Pixel counts by predicted probability and by whether the prediction was correct.

    With one class, the probability is that of the lesion, and it is correct on lesion pixels. With several classes, it
    is that of the predicted class, and it is correct where that class is the target. Ignored pixels do not count. The
    20 bins have a width of 0.05. A probability on a border belongs to the upper bin, and 1 to the last one.
    """

    def __init__(self) -> None:
        self._counts: list[Tensor] = []
        self._sums = torch.zeros(NUM_BINS, dtype=torch.int64)

    def add(self, probability: Tensor, target: Tensor) -> None:
        """Count a batch on its own device; only the counts are kept.

        Args:
            probability: Floating point in 0..1, (b, 1, h, w) of the lesion or (b, k, h, w) of each class.
            target: uint8 (b, h, w): binary masks, or class indices with 255 = ignore.
        """
        if probability.shape[1] == 1:
            scores, outcome, counted = probability[:, 0], target > 0, torch.ones_like(target, dtype=torch.bool)
        else:
            scores, label = probability.max(dim=1)
            outcome, counted = label == target, target != IGNORE_INDEX
        borders = torch.arange(1, NUM_BINS, device=scores.device, dtype=scores.dtype) / NUM_BINS
        bins = torch.bucketize(scores, borders, right=True)
        image = torch.arange(len(scores), device=scores.device).view(-1, 1, 1)
        cells = ((image * NUM_BINS + bins) * 2 + outcome)[counted]
        counts = torch.bincount(cells, minlength=len(scores) * NUM_BINS * 2)
        self._counts.append(counts.view(-1, NUM_BINS, 2).cpu())
        units = (scores[counted].double() * _UNIT).round().long()
        self._sums += torch.zeros_like(self._sums, device=scores.device).index_add_(0, bins[counted], units).cpu()

    @property
    def counts(self) -> Tensor:
        """int64 (n, t, 2): incorrect and correct pixels of each image and bin."""
        return torch.cat(self._counts) if self._counts else torch.zeros(0, NUM_BINS, 2, dtype=torch.int64)

    @property
    def mean_probability(self) -> Tensor:
        """float64 (t,): mean over the pixels of all images in each bin; NaN in an empty bin."""
        return self._sums.double() / _UNIT / self.counts.sum(dim=(0, 2))


@dataclass(frozen=True)
class Calibration:
    """Reliability curve and calibration error.

    Attributes:
        ece: Expected calibration error: |mean probability - frequency| of each bin, weighted by its pixels.
        borders: Borders of the t bins, (t + 1,) from 0 to 1.
        num_pixels: int64 (t,), pixels of each bin.
        probability: float64 (t,), mean probability of each bin; NaN in an empty bin.
        frequency: float64 (t,), fraction of correct pixels in each bin; NaN in an empty bin.
    """

    ece: float
    borders: Tensor
    num_pixels: Tensor
    probability: Tensor
    frequency: Tensor


def calibration(counts: CalibrationCounts) -> Calibration:
    """Compute reliability curve and expected calibration error over the pixels of all images.

    Raises:
        ValueError: No pixel was counted.
    Source: Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv 1706.04599.
    """
    of_bins = counts.counts.sum(dim=0)
    num_pixels = of_bins.sum(dim=1)
    if not num_pixels.any():
        raise ValueError("there are no pixels to calibrate on")
    probability, frequency = counts.mean_probability, of_bins[:, 1].double() / num_pixels
    gaps = (probability - frequency).abs().nan_to_num(0.0)
    return Calibration(
        ece=((gaps * num_pixels).sum() / num_pixels.sum()).item(),
        borders=torch.arange(NUM_BINS + 1, dtype=torch.float64) / NUM_BINS,
        num_pixels=num_pixels,
        probability=probability,
        frequency=frequency,
    )


def threshold_sweep(counts: CalibrationCounts) -> dict[float, dict[str, float]]:
    """Metrics of `summarize` at the thresholds 0.05, 0.10 … 0.95, for one class.

    Returns:
        Metrics by threshold.
    Raises:
        ValueError: There is no image.
    """
    of_images = counts.counts
    # a threshold at the lower border of a bin predicts lesion for the pixels of this bin and all upper ones
    fp, tp = of_images.flip(1).cumsum(dim=1).flip(1).unbind(-1)
    tn, fn = (of_images.cumsum(dim=1) - of_images).unbind(-1)
    at_borders = torch.stack([tp, fp, fn, tn], dim=-1)
    return {border / NUM_BINS: summarize(at_borders[:, border]) for border in range(1, NUM_BINS)}
