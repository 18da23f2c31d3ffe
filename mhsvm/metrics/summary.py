"""Metrics of a test set.

Every metric is computed from sums over images: sums of counts for pooled metrics, sums of values and numbers of values
for averaged ones. To resample images, or to swap them between two models, is to weight the rows of one matrix.
Shape letters: n images, c scored classes, s summands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.metrics.boundary import BOUNDARY
from mhsvm.metrics.counts import PER_IMAGE, per_image, target_pixels

# The ISIC challenge counts an image with a smaller Jaccard index as failed.
ISIC_THRESHOLD = 0.65

_COUNTS = ("tp", "fp", "fn", "tn")
_SUMMANDS = (*_COUNTS, *PER_IMAGE, "jaccard_thresholded", "images")
# Overlaps have the names that are usual in papers.
_POOLED_NAMES = {"miou": "jaccard", "dsc": "dice"} | {name: name for name in PER_IMAGE[2:]}
POOLED = tuple(_POOLED_NAMES)


@dataclass(frozen=True)
class Scores:
    """Measurements on each image of a test set.

    Attributes:
        ids: Unique ids of the n images.
        counts: int64 (n, c, 4): tp, fp, fn, tn of each scored class, see `mhsvm.metrics.class_counts`.
        distances: float64 (n, c, m), numbers that counts cannot give, see `mhsvm.metrics.measure_masks`; None if not
            measured.
        names: Names of the m columns of `distances`; by default the boundary distances in pixels.
    """

    ids: tuple[str, ...]
    counts: Tensor
    distances: Tensor | None = None
    names: tuple[str, ...] = BOUNDARY

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_unbounded(self) -> int:
        """Number of images without a boundary distance in any class, because prediction or target is empty."""
        columns = [place for place, name in enumerate(self.names) if name in BOUNDARY]
        if self.distances is None or not columns:
            return 0
        return int(self.distances[..., columns].isnan().any(dim=-1).all(dim=-1).sum())

    @property
    def occurring(self) -> Tensor:
        """bool (c,), see `occurring_classes`."""
        return occurring_classes(self.counts)

    def per_image(self) -> dict[str, Tensor]:
        """Metrics of each image by the names `PER_IMAGE`, float64 (n,).

        With several classes each is the mean over those that occur in the test set; if none does, over all.
        """
        chosen = self.occurring if self.occurring.any() else slice(None)
        return {name: values[:, chosen].mean(dim=1) for name, values in per_image(self.counts).items()}

    def of_class(self, label: int) -> "Scores":
        """Select the scores of one class; the first scored class is 1."""
        place = slice(label - 1, label)
        distances = None if self.distances is None else self.distances[:, place]
        return Scores(self.ids, self.counts[:, place], distances, self.names)

    def rows(self, rows: Tensor) -> "Scores":
        """Select rows (n',)."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        return Scores(ids, self.counts[rows], None if self.distances is None else self.distances[rows], self.names)

    @classmethod
    def join(cls, several: "Sequence[Scores]") -> "Scores":
        """All rows of several scores with the same columns, at least one."""
        distances = [scores.distances for scores in several if scores.distances is not None]
        return cls(
            tuple(id_ for scores in several for id_ in scores.ids),
            torch.cat([scores.counts for scores in several]),
            torch.cat(distances) if distances else None,
            several[0].names,
        )

    def without(self, names: Sequence[str]) -> "Scores":
        """Leave columns of `distances` out."""
        kept = [place for place, name in enumerate(self.names) if name not in names]
        if self.distances is None or len(kept) == len(self.names):
            return self
        return Scores(self.ids, self.counts, self.distances[..., kept], tuple(self.names[place] for place in kept))

    def metrics(self) -> dict[str, float]:
        """Compute the metrics of all images, see `summarize`."""
        return summarize(self.counts, self.distances, self.names)


def summarize(counts: Tensor, distances: Tensor | None = None, names: Sequence[str] = BOUNDARY) -> dict[str, float]:
    """Summarize a test set.

    Args:
        counts: Result of `confusion_counts` for all images, (n, 4) or (n, c, 4), n at least 1.
        distances: Result of `measure_masks` or `boundary_distances`, (n, c, m), or None.
        names: Names of the m columns.
    Returns:
        Metrics by name. `miou`, `dsc`, `accuracy`, `sensitivity` and `specificity` are pooled over all pixels (one
        confusion matrix). The same names with `_per_image` are averaged over images. `jaccard_thresholded` is the mean
        over images of a Jaccard index that counts 0 below 0.65. With several classes, each is the mean over the scored
        classes that occur in a target, and NaN if none does. With distances, the names of the columns with
        `_per_image` are means over the images where they are defined; with several classes, over the classes with such
        an image; NaN if there is none.
    Raises:
        ValueError: There is no image.
    """
    if counts.shape[0] == 0:
        raise ValueError("there are no images to summarize")
    sums, classes = summands(counts, distances).sum(dim=0), occurring_classes(counts)
    return {name: value.item() for name, value in metrics_of(sums, names, classes=classes).items()}


def occurring_classes(counts: Tensor) -> Tensor:
    """Which scored classes have a target pixel in any image: counts (n, c, 4) or (n, 4) -> bool (c,).

    The mean over several classes leaves the others out: with nothing to find, their Dice says nothing. A single class
    always counts; see `mhsvm.metrics.counts` for its metrics where no image has a lesion.
    """
    counts = counts.unsqueeze(1) if counts.ndim == 2 else counts
    if counts.shape[1] == 1:
        return torch.ones(1, dtype=torch.bool)
    return (target_pixels(counts)[..., 0] > 0).any(dim=0).cpu()


def summands(counts: Tensor, distances: Tensor | None = None) -> Tensor:
    """Compute the terms that each image adds to the sums; for the arguments see `summarize`.

    Returns:
        float64 (n, c, s); s is smaller without distances.
    """
    counts = counts.unsqueeze(1) if counts.ndim == 2 else counts
    values = per_image(counts)
    jaccard = values["jaccard"]
    columns = [*counts.double().unbind(-1), *values.values()]
    columns += [jaccard.where(jaccard >= ISIC_THRESHOLD, 0.0), torch.ones_like(jaccard)]
    if distances is not None:
        columns += [*distances.where(~distances.isnan(), 0.0).unbind(-1), *(~distances.isnan()).double().unbind(-1)]
    return torch.stack(columns, dim=-1)


def metrics_of(sums: Tensor, names: Sequence[str] = BOUNDARY, *, classes: Tensor) -> dict[str, Tensor]:
    """Compute metrics from weighted sums of `summands`.

    Args:
        sums: float64 (…, c, s).
        names: Names of the columns of distances, if there are any among the summands.
        classes: bool (c,), classes of the mean, see `occurring_classes`.
    Returns:
        float64 (…) for each name of `summarize`.
    """
    parts = dict(zip(_SUMMANDS, sums.unbind(-1), strict=False))
    pooled = per_image(torch.stack([parts[name] for name in _COUNTS], dim=-1))
    metrics = {name: pooled[key] for name, key in _POOLED_NAMES.items()}
    metrics |= {f"{name}_per_image": parts[key] / parts["images"] for name, key in _POOLED_NAMES.items()}
    metrics["jaccard_thresholded"] = parts["jaccard_thresholded"] / parts["images"]
    measured = sums[..., len(_SUMMANDS) :]
    if measured.shape[-1]:
        # 0 / 0, which is NaN, if a metric is defined for no image of a class
        means = torch.div(*measured.chunk(2, dim=-1)).unbind(-1)
        metrics |= {f"{name}_per_image": mean for name, mean in zip(names, means, strict=True)}
    return {name: values[..., classes].nanmean(dim=-1) for name, values in metrics.items()}
