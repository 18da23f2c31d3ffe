"""Measurements of a test on each batch besides the counts: boundaries, calibration, and metrics at native size."""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mhsvm.data.consensus import as_labels
from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.evaluator import target_masks
from mhsvm.evaluation.image_score import ImageScore, SizedScores, join_scores, score_image
from mhsvm.evaluation.raters import RaterScores, RaterSettings, compare_raters
from mhsvm.inference.probability import resize_probability, to_mask
from mhsvm.metrics import (
    RANKING,
    Arguments,
    CalibrationCounts,
    RankingCounts,
    chosen_metrics,
    measure_masks,
    metric_columns,
    ranking_metrics,
)
from mhsvm.prepare.native import NativeMasks
from mhsvm.store import PreparedSet
from mhsvm.threads import image_threads


class Measurement:
    """Measures batch by batch, and keeps counts and distances, but no maps.

    Args:
        dataset: The images and masks of the test.
        threshold: Probability at and above which a pixel is lesion.
        boundary: Measure boundaries, which takes longer.
        arguments: Arguments of metrics, see `mhsvm.metrics.metric_arguments`.
        native: Masks at the images' own sizes; the probability is resized to them (bilinear) and then thresholded.
            None measures at the set's size only.
    Attributes:
        names: Names of the columns of `distances`.
        calibration: Pixels by probability, at the set's size.
        ranking: Pixels of each image by probability in 255ths, at the set's size.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        threshold: float,
        boundary: bool,
        arguments: Arguments | None = None,
        native: NativeMasks | None = None,
    ) -> None:
        self._dataset = dataset
        self._threshold = threshold
        self._boundary = boundary
        self._arguments = arguments
        self._native = native
        self._metrics = chosen_metrics(boundary=boundary)
        self.names = (*metric_columns(self._metrics), *RANKING)
        self._ids: list[str] = []
        self._distances: list[Tensor] = []
        self._images: list[ImageScore] = []
        self.calibration = CalibrationCounts()
        self.ranking = RankingCounts()

    def add(self, rows: Tensor, probability: Tensor) -> None:
        """Measure a batch: rows (b,) of the data set, probability (b, 1 or k, h, w)."""
        num_classes = self._dataset.num_classes
        target = target_masks(self._dataset.masks[rows].to(probability.device), num_classes)
        self.calibration.add(probability, target)
        self.ranking.add(probability, target)
        self._ids += [self._dataset.ids[row] for row in rows.tolist()]
        if self._metrics:
            pred = to_mask(probability, self._threshold)
            self._distances.append(
                measure_masks(pred, target, metrics=self._metrics, num_classes=num_classes, arguments=self._arguments)
            )
        if self._native is not None:
            # decoding, resizing and counting mostly run outside Python's lock
            with image_threads() as pool:
                targets = pool.map(self._native.read, self._ids[-len(rows) :])
                self._images += pool.map(self._measure_native, targets, probability.cpu().split(1))

    def _measure_native(self, target: np.ndarray, probability: Tensor) -> ImageScore:
        pred = to_mask(resize_probability(probability, target.shape), self._threshold)[0].numpy()
        return score_image(
            pred,
            target,
            num_classes=self._dataset.num_classes,
            boundary=self._boundary,
            arguments=self._arguments,
        )

    @property
    def distances(self) -> Tensor:
        """float64 (n, c, m) of the measured images, see `mhsvm.metrics.measure_masks` and `ranking_metrics`."""
        ranking = torch.stack([*ranking_metrics(self.ranking.counts).values()], dim=-1)
        return torch.cat([torch.cat(self._distances), ranking], dim=-1) if self._distances else ranking

    @property
    def native(self) -> SizedScores | None:
        """Scores at native size, or None."""
        return join_scores(self._ids, self._images) if self._images else None


class RaterMeasurement:
    """Compares batch by batch with the masks of several raters, at the set's size.

    Args:
        prepared: The set, with masks of raters.
        settings: How they are compared.
        threshold: Probability at and above which a pixel is lesion.
    Attributes:
        scores: The comparisons of the measured images.
    """

    def __init__(self, prepared: PreparedSet, settings: RaterSettings, *, threshold: float) -> None:
        assert prepared.ratings is not None, "the set has masks of raters"
        self._ratings = prepared.ratings
        self._row_of = {image_id: row for row, image_id in enumerate(prepared.ids)}
        self._threshold = threshold
        self.scores = RaterScores(settings)

    @classmethod
    def open(
        cls, prepared: PreparedSet, *, threshold: float, boundary: bool, arguments: Arguments | None = None
    ) -> "RaterMeasurement | None":
        """The comparisons of a set; None if it has one mask an image."""
        if prepared.ratings is None:
            return None
        settings = RaterSettings(prepared.ratings.raters, prepared.num_classes, boundary, arguments)
        return cls(prepared, settings, threshold=threshold)

    def add(self, ids: Sequence[str], probability: Tensor) -> None:
        """Compare the predictions of a batch: ids of b images, probability (b, 1 or k, h, w)."""
        num_classes = self.scores.settings.num_classes
        preds = to_mask(probability, self._threshold).cpu().numpy()
        masks = [
            {rater: as_labels(mask, num_classes) for rater, mask in self._ratings.of(self._row_of[image_id]).items()}
            for image_id in ids
        ]
        with image_threads() as pool:
            compared = pool.map(partial(compare_raters, settings=self.scores.settings), preds, masks)
            for image_id, each in zip(ids, compared, strict=True):
                self.scores.add(image_id, each)
