"""Anybody's masks against a truth: two sets of files, matched by id.

What differs in size is brought to the size at which it is measured: a mask by area (a pixel is lesion if at least half
of it is; of several classes, the one with the largest area), greys bilinear before they are cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.evaluation.image_score import ImageScore, SizedScores, join_scores, score_image
from mhsvm.inference.probability import resize_probability
from mhsvm.prepare.archive import SourceFile, open_sources
from mhsvm.prepare.decode import IGNORE, MaskLevelsError, decode_grayscale, decode_mask
from mhsvm.prepare.pairs import mask_files, masks_by_id
from mhsvm.prepare.pipeline import CLASSES, UNREADABLE
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.resize import mask_coverage, resize_classes
from mhsvm.threads import image_threads

NO_PREDICTION = Rule("truth without a prediction", "add its prediction, or score only the ids of both with `common`")
NO_TRUTH = Rule("prediction without a truth", "add its ground truth, or score only the ids of both with `common`")
NOTHING_COMMON = Rule("no id that both have", "names must agree but for endings such as _segmentation or _prediction")
GRAY_LEVELS = Rule(
    "file with other levels than black and white",
    "give `threshold` as a fraction of full scale, such as 0.5, to binarize; class indices need `num_classes`",
)
COLORS = Rule("file with colors", "save masks in grayscale, with one channel")
TURNED = Rule(
    "prediction with height and width swapped", "turn it as its truth lies; images may carry EXIF orientation"
)
IGNORED = Rule("prediction with ignored pixels", "255 is for the truth; predict one of the classes 0..K-1 everywhere")

SIDES = ("predictions", "truth")


@dataclass(frozen=True)
class FolderScore:
    """Scores of predictions in files.

    Attributes:
        measured: What was measured, by ascending id.
        num_resized: Predictions that had another size than the one at which they were measured.
        only_predicted, only_true: How many files without a partner were left out.
        greys: Which of "predictions" and "truth" held greys, and were cut.
    """

    measured: SizedScores
    num_resized: int
    only_predicted: int
    only_true: int
    greys: tuple[str, ...]


def score_files(
    pred: Sequence[Path],
    truth: Sequence[Path],
    *,
    num_classes: int = 1,
    threshold: float | None = None,
    size: tuple[int, int] | None = None,
    common: bool = False,
    boundary: bool = True,
) -> FolderScore:
    """Score masks against a truth.

    Args:
        pred, truth: Folders and unextracted zip files. A mask has the levels 0 and 255, or 0 and 1; class indices with
            several classes. Names may have endings such as `_segmentation`.
        num_classes: 1 for lesion or not, else k.
        threshold: Share of full scale, between 0 and 1, from which a grey is lesion. Where any file on a side has
            greys, all of that side are cut; None refuses greys.
        size: (h, w) at which both are measured; None takes that of each truth.
        common: Measure what both sides have; otherwise a file without a partner is an error.
        boundary: Whether outlines are measured, which takes longer.
    Raises:
        ValueError: An argument is wrong, or files have problems: all of them are listed.
    """
    _check_threshold(threshold, num_classes)
    problems = Problems()
    headline = "the masks have problems, and nothing was scored:"
    with open_sources(pred, problems) as pred_files, open_sources(truth, problems) as truth_files:
        if not pred_files or not truth_files:
            problems.raise_if_any(headline)
        preds, truths = (
            mask_files(files, problems, kind=side) for files, side in zip((pred_files, truth_files), SIDES, strict=True)
        )
        if not preds or not truths:
            problems.raise_if_any(headline)
        preds, truths = masks_by_id(preds, truths, problems), masks_by_id(truths, preds, problems)
        ids = _partners(preds, truths, problems, common=common)
        problems.raise_if_any(headline)
        sides = [
            _Side({id_: found[id_] for id_ in ids}, num_classes=num_classes, threshold=threshold)
            for found in (preds, truths)
        ]
        score = partial(_score, sides=sides, size=size, boundary=boundary, problems=problems)
        with image_threads() as pool:
            scored = list(tqdm(pool.map(score, ids), total=len(ids), unit="mask", disable=None, dynamic_ncols=True))
        problems.raise_if_any(headline)
    images, resized = zip(*scored, strict=True)
    return FolderScore(
        measured=join_scores(ids, images),
        num_resized=sum(resized),
        only_predicted=len(preds) - len(ids),
        only_true=len(truths) - len(ids),
        greys=tuple(what for what, side in zip(SIDES, sides, strict=True) if side.is_grey),
    )


class _Side:
    """The files of predictions, or of the truth: all of them masks, or all of them greys to be cut."""

    def __init__(self, files: Mapping[str, SourceFile], *, num_classes: int, threshold: float | None) -> None:
        self.files = files
        self.num_classes = num_classes
        self.threshold = threshold
        # of all files together: a map of greys may hold no more than the levels of a mask
        self.is_grey = threshold is not None and any(map(_has_greys, files.values()))

    def read(self, id_: str, problems: Problems) -> np.ndarray | None:
        """A mask, uint8 (h, w), or greys, float32 (h, w); None, with a note in `problems`, if it is neither."""
        file = self.files[id_]
        try:
            content = file.read()
            return decode_grayscale(content) if self.is_grey else decode_mask(content, self.num_classes)
        except MaskLevelsError as error:
            rule = COLORS if self.is_grey else GRAY_LEVELS if self.num_classes == 1 else CLASSES
            problems.add(rule, f"{file.name}: {error}")
        except ValueError as error:
            problems.add(UNREADABLE, f"{file.name}: {error}")
        return None

    def mask(self, levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """What was read, as a mask of a size: uint8 (h, w)."""
        if self.is_grey:
            maps = resize_probability(torch.from_numpy(levels)[None, None], size)
            return (maps[0, 0] >= self.threshold).to(torch.uint8).numpy()
        if self.num_classes > 1:
            return resize_classes(levels, size, self.num_classes)
        return levels if levels.shape == size else (mask_coverage(levels, size) >= 128).astype(np.uint8)


def _has_greys(file: SourceFile) -> bool:
    try:
        decode_mask(file.read())
    except MaskLevelsError:
        return True
    except ValueError:
        # unreadable: told when it is read
        return False
    return False


def _score(
    id_: str,
    *,
    sides: Sequence[_Side],
    size: tuple[int, int] | None,
    boundary: bool,
    problems: Problems,
) -> tuple[ImageScore, bool] | None:
    """The score of one pair, and whether the prediction was resized; None, with a note, if something is wrong."""
    levels = [side.read(id_, problems) for side in sides]
    if any(of_side is None for of_side in levels):
        return None
    pred, truth = levels
    h, w = truth.shape
    names = " and ".join(side.files[id_].name for side in sides)
    if h != w and pred.shape == (w, h):
        problems.add(TURNED, f"{names}: {w} x {h} and {h} x {w} (height x width)")
        return None
    num_classes = sides[0].num_classes
    if num_classes > 1 and (pred == IGNORE).any():
        problems.add(IGNORED, sides[0].files[id_].name)
        return None
    masks = [side.mask(of_side, size or (h, w)) for side, of_side in zip(sides, levels, strict=True)]
    return score_image(*masks, num_classes=num_classes, boundary=boundary), pred.shape != (size or (h, w))


def _partners(
    preds: Mapping[str, SourceFile], truths: Mapping[str, SourceFile], problems: Problems, *, common: bool
) -> list[str]:
    """Ids that both sides have, ascending; what has no partner is a problem, unless it may be left out."""
    ids = sorted(preds.keys() & truths.keys())
    if not ids:
        problems.add(NOTHING_COMMON, f"such as {min(preds)} and {min(truths)}")
    elif not common:
        for id_ in truths.keys() - preds.keys():
            problems.add(NO_PREDICTION, f"{id_}: {truths[id_].name}")
        for id_ in preds.keys() - truths.keys():
            problems.add(NO_TRUTH, f"{id_}: {preds[id_].name}")
    return ids


def _check_threshold(threshold: float | None, num_classes: int) -> None:
    if threshold is None:
        return
    if not 0 < threshold <= 1:
        raise ValueError(f"a threshold is a share of full scale, above 0 and at most 1; got {threshold:g}: 128 is 0.5")
    if num_classes > 1:
        raise ValueError("class indices are not thresholded: leave `threshold` or `num_classes` out")
