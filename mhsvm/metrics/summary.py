"""What the images of a test set sum up to.

Every figure is made of sums over images: the pooled ones of their counts, the averaged ones of their values and of how
many have a value. So to draw images anew, or to swap them between two models, is to weight rows of one matrix.
Shape letters: n images, c scored classes, s summands.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mhsvm.metrics.boundary import BOUNDARY
from mhsvm.metrics.counts import PER_IMAGE, per_image

# Below this Jaccard index the ISIC challenge counts an image as failed.
ISIC_THRESHOLD = 0.65

_COUNTS = ("tp", "fp", "fn", "tn")
_SUMMANDS = (*_COUNTS, *PER_IMAGE, "jaccard_thresholded", "images", *BOUNDARY, "bounded")
# The field's names of the overlaps, as its papers print them.
_FIGURES = {"miou": "jaccard", "dsc": "dice"} | {name: name for name in PER_IMAGE[2:]}
POOLED = tuple(_FIGURES)


@dataclass(frozen=True)
class Scores:
    """What was measured of each image of a test set.

    Attributes:
        ids: Names of the n images, each once.
        counts: int64 (n, c, 4): tp, fp, fn, tn of each scored class, see `mhsvm.metrics.class_counts`.
        distances: float64 (n, c, 2) in pixels, see `mhsvm.metrics.boundary_distances`; None if not measured.
    """

    ids: tuple[str, ...]
    counts: Tensor
    distances: Tensor | None = None

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def num_unbounded(self) -> int:
        """Images whose outlines could not be measured, in no class: prediction or truth is empty."""
        return 0 if self.distances is None else int(self.distances.isnan().any(dim=-1).all(dim=-1).sum())

    def of_class(self, label: int) -> "Scores":
        """The scores of one class alone, 1 for the first that is scored."""
        place = slice(label - 1, label)
        return Scores(self.ids, self.counts[:, place], None if self.distances is None else self.distances[:, place])

    def rows(self, rows: Tensor) -> "Scores":
        """The scores of the given rows (n',)."""
        ids = tuple(self.ids[row] for row in rows.tolist())
        return Scores(ids, self.counts[rows], None if self.distances is None else self.distances[rows])

    def figures(self) -> dict[str, float]:
        """See `summarize`."""
        return summarize(self.counts, self.distances)


def summarize(counts: Tensor, distances: Tensor | None = None) -> dict[str, float]:
    """Sum up a test set.

    Args:
        counts: From `confusion_counts` of all images, (n, 4) or (n, c, 4), n at least 1.
        distances: From `boundary_distances`, (n, c, 2), or None.
    Returns:
        `miou`, `dsc`, `accuracy`, `sensitivity`, `specificity` of all pixels pooled (one confusion matrix);
        the same names with `_per_image`, averaged over images; `jaccard_thresholded`, the mean over images of a
        Jaccard index that counts 0 below 0.65. With several classes each is the mean over the scored classes.
        With distances also `hd95_per_image` and `assd_per_image` in pixels, over the images where they are defined;
        of several classes the mean over those with such an image; NaN where there is none.
    Raises:
        ValueError: There is no image.
    """
    if counts.shape[0] == 0:
        raise ValueError("there are no images to sum up")
    return {name: value.item() for name, value in figures_of(summands(counts, distances).sum(dim=0)).items()}


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
        bounded = ~distances.isnan().any(dim=-1)
        columns += [*distances.where(bounded.unsqueeze(-1), 0.0).unbind(-1), bounded.double()]
    return torch.stack(columns, dim=-1)


def figures_of(sums: Tensor) -> dict[str, Tensor]:
    """The figures that weighted sums of `summands` make.

    Args:
        sums: float64 (…, c, s).
    Returns:
        float64 (…) under each name that `summarize` gives.
    """
    parts = dict(zip(_SUMMANDS, sums.unbind(-1), strict=False))
    pooled = per_image(torch.stack([parts[name] for name in _COUNTS], dim=-1))
    figures = {name: pooled[figure] for name, figure in _FIGURES.items()}
    figures |= {f"{name}_per_image": parts[figure] / parts["images"] for name, figure in _FIGURES.items()}
    figures["jaccard_thresholded"] = parts["jaccard_thresholded"] / parts["images"]
    if "bounded" in parts:
        # 0 / 0, which is NaN, where a class has no image with two outlines
        figures |= {f"{name}_per_image": parts[name] / parts["bounded"] for name in BOUNDARY}
    return {name: values.nanmean(dim=-1) for name, values in figures.items()}
