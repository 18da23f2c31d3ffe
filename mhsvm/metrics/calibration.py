"""Whether probabilities mean what they say, and what another threshold would give: from counts, a batch at a time.

Shape letters: n images, b images of a batch, t bins.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.metrics.counts import IGNORE_INDEX
from mhsvm.metrics.summary import summarize

NUM_BINS = 20
# Probabilities are added up as whole numbers, so that no order of additions on any device changes the sum.
_UNIT = 2**30


class CalibrationCounts:
    """Pixels counted by their probability and by whether it came true.

    With one class the probability is the lesion's, and it comes true on lesion pixels; with several it is that of the
    likeliest class, and it comes true where that class is the right one. Pixels that the truth ignores do not count.
    The 20 bins are 0.05 wide; a probability on a border belongs to the upper one, and 1 to the last.
    """

    def __init__(self) -> None:
        self._counts: list[Tensor] = []
        self._sums = torch.zeros(NUM_BINS, dtype=torch.int64)

    def add(self, probability: Tensor, truth: Tensor) -> None:
        """Count a batch on the device that it is on; only the counts are kept.

        Args:
            probability: Floating in 0..1, (b, 1, h, w) of lesion or (b, k, h, w) of each class.
            truth: uint8 (b, h, w): lesion or not, or class indices, 255 of which is not counted.
        """
        if probability.shape[1] == 1:
            scores, outcome, counted = probability[:, 0], truth > 0, torch.ones_like(truth, dtype=torch.bool)
        else:
            scores, label = probability.max(dim=1)
            outcome, counted = label == truth, truth != IGNORE_INDEX
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
        """int64 (n, t, 2): pixels of each image and bin that did not come true, and that did."""
        return torch.cat(self._counts) if self._counts else torch.zeros(0, NUM_BINS, 2, dtype=torch.int64)

    @property
    def mean_probability(self) -> Tensor:
        """float64 (t,): of the pixels of all images in each bin; NaN where there are none."""
        return self._sums.double() / _UNIT / self.counts.sum(dim=(0, 2))


@dataclass(frozen=True)
class Calibration:
    """How far probabilities are from frequencies.

    Attributes:
        ece: Expected calibration error: |mean probability - frequency| of each bin, weighted by its pixels.
        borders: Of the t bins, (t + 1,) from 0 to 1.
        num_pixels: int64 (t,), of each bin.
        probability: float64 (t,), their mean; NaN in an empty bin.
        frequency: float64 (t,), the share that came true; NaN in an empty bin.
    """

    ece: float
    borders: Tensor
    num_pixels: Tensor
    probability: Tensor
    frequency: Tensor


def calibration(counts: CalibrationCounts) -> Calibration:
    """Reliability curve and expected calibration error over the pixels of all images.

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
    """What `summarize` would give at other thresholds, with one class: threshold -> figures, at 0.05, 0.10 … 0.95.

    Raises:
        ValueError: There is no image.
    """
    of_images = counts.counts
    # pixels from each bin on are those that a threshold at its lower border takes for lesion
    fp, tp = of_images.flip(1).cumsum(dim=1).flip(1).unbind(-1)
    tn, fn = (of_images.cumsum(dim=1) - of_images).unbind(-1)
    at_borders = torch.stack([tp, fp, fn, tn], dim=-1)
    return {border / NUM_BINS: summarize(at_borders[:, border]) for border in range(1, NUM_BINS)}
