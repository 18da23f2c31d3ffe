"""What a test measures of each batch besides the counts: outlines, calibration, and everything at native size."""

import torch
from torch import Tensor

from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.evaluator import truth_of
from mhsvm.evaluation.image_score import ImageScore, SizedScores, join_scores, score_image
from mhsvm.inference.probability import resize_probability, to_mask
from mhsvm.metrics import CalibrationCounts, chosen_metrics, measure_masks, metric_columns
from mhsvm.prepare.native import NativeMasks
from mhsvm.threads import image_threads


class Measurement:
    """Measures batches as they come, and keeps counts and distances of them, no maps.

    Args:
        dataset: What is tested.
        threshold: Probability from which a pixel is lesion.
        boundary: Whether outlines are measured, which takes longer.
        native: Masks at the images' own sizes, to which the probability is brought (bilinear) before it is decided;
            None measures at the set's size only.
    Attributes:
        names: Of the columns of `distances`.
        calibration: Pixels by probability, at the set's size.
    """

    def __init__(
        self, dataset: Dataset, *, threshold: float, boundary: bool, native: NativeMasks | None = None
    ) -> None:
        self._dataset = dataset
        self._threshold = threshold
        self._boundary = boundary
        self._native = native
        self._ids: list[str] = []
        self._distances: list[Tensor] = []
        self._images: list[ImageScore] = []
        self._metrics = chosen_metrics(boundary=boundary)
        self.names = metric_columns(self._metrics)
        self.calibration = CalibrationCounts()

    def add(self, rows: Tensor, probability: Tensor) -> None:
        """Measure a batch: rows (b,) of the data set, probability (b, 1 or k, h, w)."""
        num_classes = self._dataset.num_classes
        truth = truth_of(self._dataset.masks[rows].to(probability.device), num_classes)
        self.calibration.add(probability, truth)
        self._ids += [self._dataset.ids[row] for row in rows.tolist()]
        if self._metrics:
            pred = to_mask(probability, self._threshold)
            self._distances.append(measure_masks(pred, truth, metrics=self._metrics, num_classes=num_classes))
        if self._native is not None:
            # mostly outside Python's lock: decoding, resizing, counting, looking up neighbours
            with image_threads() as pool:
                self._images += pool.map(self._measure_native, self._ids[-len(rows) :], probability.cpu().split(1))

    def _measure_native(self, image_id: str, probability: Tensor) -> ImageScore:
        truth = self._native.read(image_id)
        pred = to_mask(resize_probability(probability, truth.shape), self._threshold)[0].numpy()
        return score_image(pred, truth, num_classes=self._dataset.num_classes, boundary=self._boundary)

    @property
    def distances(self) -> Tensor | None:
        """float64 (n, c, m) of the images that came, see `mhsvm.metrics.measure_masks`; None if not measured."""
        return torch.cat(self._distances) if self._distances else None

    @property
    def native(self) -> SizedScores | None:
        """What was measured at native size, or None."""
        return join_scores(self._ids, self._images) if self._images else None
