"""What the images of a test set sum up to.

Every figure is made of sums over images: the pooled ones of their counts, the averaged ones of their values and of how
many have a value. So to draw images anew, or to swap them between two models, is to weight rows of one matrix.
Shape letters: n images, c scored classes, s summands.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.metrics.boundary import BOUNDARY
from mhsvm.metrics.counts import PER_IMAGE, per_image

# Below this Jaccard index the ISIC challenge counts an image as failed.
ISIC_THRESHOLD = 0.65

_COUNTS = ("tp", "fp", "fn", "tn")
_SUMMANDS = (*_COUNTS, *PER_IMAGE, "jaccard_thresholded", "images")
# The field's names of the overlaps, as its papers print them.
_FIGURES = {"miou": "jaccard", "dsc": "dice"} | {name: name for name in PER_IMAGE[2:]}
POOLED = tuple(_FIGURES)


@dataclass(frozen=True)
class Scores:
    """What was measured of each image of a test set.

    Attributes:
        ids: Names of the n images, each once.
        counts: int64 (n, c, 4): tp, fp, fn, tn of each scored class, see `mhsvm.metrics.class_counts`.
        distances: float64 (n, c, m), numbers that counts cannot give, see `mhsvm.metrics.measure_masks`; None if not
            measured.
        names: Of the m columns of `distances`; by default the boundary distances in pixels.
    """

    ids: tuple[str, ...]
    counts: Tensor
    distances: Tensor | None = None
    names: tuple[str, ...] = BOUNDARY

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_unbounded(self) -> int:
        """Images whose boundary could not be measured, in no class: prediction or target is empty."""
        columns = [place for place, name in enumerate(self.names) if name in BOUNDARY]
        if self.distances is None or not columns:
            return 0
        return int(self.distances[..., columns].isnan().any(dim=-1).all(dim=-1).sum())

    def of_class(self, label: int) -> "Scores":
        """The scores of one class alone, 1 for the first that is scored."""
        place = slice(label - 1, label)
        distances = None if self.distances is None else self.distances[:, place]
        return Scores(self.ids, self.counts[:, place], distances, self.names)

    def rows(self, rows: Tensor) -> "Scores":
        """The scores of the given rows (n',)."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        return Scores(ids, self.counts[rows], None if self.distances is None else self.distances[rows], self.names)

    def figures(self) -> dict[str, float]:
        """See `summarize`."""
        return summarize(self.counts, self.distances, self.names)


def summarize(counts: Tensor, distances: Tensor | None = None, names: Sequence[str] = BOUNDARY) -> dict[str, float]:
    """Sum up a test set.

    Args:
        counts: From `confusion_counts` of all images, (n, 4) or (n, c, 4), n at least 1.
        distances: From `measure_masks` or `boundary_distances`, (n, c, m), or None.
        names: Of the m columns.
    Returns:
        `miou`, `dsc`, `accuracy`, `sensitivity`, `specificity` of all pixels pooled (one confusion matrix);
        the same names with `_per_image`, averaged over images; `jaccard_thresholded`, the mean over images of a
        Jaccard index that counts 0 below 0.65. With several classes each is the mean over the scored classes.
        With distances also each column's name with `_per_image`, over the images where it is defined;
        of several classes the mean over those with such an image; NaN where there is none.
    Raises:
        ValueError: There is no image.
    """
    if counts.shape[0] == 0:
        raise ValueError("there are no images to sum up")
    sums = summands(counts, distances).sum(dim=0)
    return {name: value.item() for name, value in figures_of(sums, names).items()}


def summands(counts: Tensor, distances: Tensor | None = None) -> Tensor:
    """What each image adds to the sums that figures are made of; arguments as of `summarize`.

    Returns:
        float64 (n, c, s), s smaller without distances.
    """
    counts = counts.unsqueeze(1) if counts.ndim == 2 else counts
    values = per_image(counts)
    jaccard = values["jaccard"]
    columns = [*counts.double().unbind(-1), *values.values()]
    columns += [jaccard.where(jaccard >= ISIC_THRESHOLD, 0.0), torch.ones_like(jaccard)]
    if distances is not None:
        columns += [*distances.where(~distances.isnan(), 0.0).unbind(-1), *(~distances.isnan()).double().unbind(-1)]
    return torch.stack(columns, dim=-1)


def figures_of(sums: Tensor, names: Sequence[str] = BOUNDARY) -> dict[str, Tensor]:
    """The figures that weighted sums of `summands` make.

    Args:
        sums: float64 (…, c, s).
        names: Of the columns of distances, if there are any among the summands.
    Returns:
        float64 (…) under each name that `summarize` gives.
    """
    parts = dict(zip(_SUMMANDS, sums.unbind(-1), strict=False))
    pooled = per_image(torch.stack([parts[name] for name in _COUNTS], dim=-1))
    figures = {name: pooled[figure] for name, figure in _FIGURES.items()}
    figures |= {f"{name}_per_image": parts[figure] / parts["images"] for name, figure in _FIGURES.items()}
    figures["jaccard_thresholded"] = parts["jaccard_thresholded"] / parts["images"]
    measured = sums[..., len(_SUMMANDS) :]
    if measured.shape[-1]:
        # 0 / 0, which is NaN, where a metric is defined for no image of a class
        means = torch.div(*measured.chunk(2, dim=-1)).unbind(-1)
        figures |= {f"{name}_per_image": mean for name, mean in zip(names, means, strict=True)}
    return {name: values.nanmean(dim=-1) for name, values in figures.items()}
