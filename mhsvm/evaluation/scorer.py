"""Scores of mask files of any tool: predictions and targets, matched by id.

Files of another size than that of the measurement are resized: masks by area (a pixel is lesion if at least half of it
is; with several classes, the class with the largest area), grayscale bilinearly before it is thresholded.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mhsvm.evaluation.image_score import ImageScore, SizedScores, join_scores, score_image
from mhsvm.evaluation.rated_targets import Key, Target, match_rated, partners
from mhsvm.evaluation.raters import Names, RaterScores, RaterSettings, compare_raters
from mhsvm.inference.probability import resize_probability
from mhsvm.metrics import Arguments
from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.class_levels import LevelTally
from mhsvm.prepare.decode import IGNORE, MaskLevelsError, check_threshold, decode_grayscale, decode_mask
from mhsvm.prepare.mask_files import mask_files
from mhsvm.prepare.mask_levels import FAINT
from mhsvm.prepare.mask_problems import note_mask_error
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.raters import RaterNames
from mhsvm.prepare.resize import mask_coverage, resize_classes
from mhsvm.prepare.sources import SOURCES
from mhsvm.prepare.walk import open_sources
from mhsvm.threads import image_threads

GRAY_LEVELS = Rule(
    "file with other levels than black and white",
    "give `threshold` as a fraction of full scale, such as 0.5, to binarize; class indices need `num_classes`",
)
SWAPPED = Rule(
    "prediction with height and width swapped", "rotate it like its target; images may have an EXIF orientation"
)
IGNORED = Rule("prediction with ignored pixels", "255 is for targets; predict one of the classes 0..K-1 everywhere")

# Names of the two sides in messages and summaries.
SIDES = ("predictions", "truth")


@dataclass(frozen=True)
class FolderScore:
    """Scores of predictions in files.

    Attributes:
        measured: Scores of the images, by ascending id.
        num_resized: Number of predictions that were resized.
        num_only_predicted, num_only_target: Number of files without a partner, which were left out.
        grayscale: Names of the sides, as in `SIDES`, whose files were grayscale and were thresholded.
        num_zero_one: Number of predictions among grayscale that hold only the levels 0 and 1 of 255.
        num_same_files: Number of predictions that are the files of their targets themselves.
        raters: Comparisons with the masks of several raters; None if each image has one target.
        skipped: Lines about files that are no masks for this program, by kind.
    """

    measured: SizedScores
    num_resized: int
    num_only_predicted: int
    num_only_target: int
    grayscale: tuple[str, ...]
    skipped: tuple[str, ...] = ()
    num_zero_one: int = 0
    num_same_files: int = 0
    raters: RaterScores | None = None


def score_files(
    pred: Sequence[Path],
    target: Sequence[Path],
    *,
    num_classes: int = 1,
    threshold: float | None = None,
    size: tuple[int, int] | None = None,
    common: bool = False,
    mask_suffix: str | None = None,
    boundary: bool = True,
    arguments: Arguments | None = None,
    raters: Sequence[str] | None = None,
) -> FolderScore:
    """Score predicted masks against their targets.

    Args:
        pred, target: Folders and unextracted zip files. A mask has the levels 0 and 255, or 0 and 1; class indices with
            several classes. Names may have endings such as `_segmentation`.
        num_classes: 1 for lesion masks, k >= 2 for class indices.
        threshold: Fraction of full scale, in (0, 1], at and above which a gray level is lesion. If any file of a side
            is grayscale, all files of that side are thresholded. None refuses grayscale.
        size: (h, w) at which both are measured; None takes that of each target.
        common: Measure the ids of both sides; otherwise a file without a partner is an error.
        mask_suffix: Ending of names that is not part of ids, such as "_seg2", besides the usual ones.
        boundary: Measure boundaries, which takes longer.
        arguments: Arguments of metrics, see `mhsvm.metrics.metric_arguments`.
        raters: Names of the raters of targets with several masks an image, see `mhsvm.prepare.raters.RaterNames`; each
            is then compared, and the primary mask is the target. None takes one target an image.
    Raises:
        ValueError: An argument is wrong, or files have problems: all of them are listed.
    """
    check_threshold(threshold, num_classes)
    problems = Problems()
    headline = "the masks have problems, and nothing was scored:"
    with open_sources(pred, problems) as pred_files, open_sources(target, problems) as target_files:
        if not pred_files or not target_files:
            problems.raise_if_any(headline)
        find = partial(mask_files, problems=problems, mask_suffix=mask_suffix, all_needed=not common)
        pred_names, target_names = (
            find(files, kind=side, predicted=side == SIDES[0])
            for files, side in zip((pred_files, target_files), SIDES, strict=True)
        )
        if not pred_names or not target_names:
            problems.raise_if_any(headline)
        names = RaterNames(SOURCES["folder"], raters)
        preds, targets = match_rated(pred_names, target_names, names, problems, mask_suffix=mask_suffix)
        ids = partners(preds, targets, problems, common=common)
        problems.raise_if_any(headline)
        sides = [
            _Side({id_: preds[id_] for id_ in ids}, num_classes=num_classes, threshold=threshold, is_target=False),
            _Side(
                {key: file for id_ in ids for key, file in targets[id_].keyed(id_).items()},
                num_classes=num_classes,
                threshold=threshold,
                is_target=True,
            ),
        ]
        settings = RaterSettings(
            names.order({rater for target in targets.values() for rater in target.rated}),
            num_classes,
            boundary,
            arguments,
        )
        score = partial(_score, sides=sides, targets=targets, size=size, settings=settings, problems=problems)
        with image_threads() as pool:
            results = list(tqdm(pool.map(score, ids), total=len(ids), unit="mask", disable=None, dynamic_ncols=True))
        _note_levels(sides, problems)
        problems.raise_if_any(headline)
    scored = [result for result in results if result is not None]
    rated = RaterScores(settings)
    for id_, (_, _, compared) in zip(ids, scored, strict=True):
        rated.add(id_, compared)
    return FolderScore(
        measured=join_scores(ids, [image for image, _, _ in scored]),
        num_resized=sum(resized for _, resized, _ in scored),
        num_only_predicted=len(preds) - len(ids),
        num_only_target=len(targets) - len(ids),
        skipped=tuple(problems.left_out()),
        num_same_files=sum(_is_one_file(preds[id_], targets[id_].primary) for id_ in ids),
        num_zero_one=len(sides[0].with_zero_one),
        grayscale=tuple(name for name, side in zip(SIDES, sides, strict=True) if side.is_grayscale),
        raters=rated if settings.raters else None,
    )


class _Side:
    """The files of predictions or of targets: all of them masks, or all of them grayscale to be thresholded."""

    def __init__(
        self, files: Mapping[Key, SourceFile], *, num_classes: int, threshold: float | None, is_target: bool
    ) -> None:
        self.files = files
        self.is_target = is_target
        self.num_classes = num_classes
        # decided for all files together: some grayscale maps have only the levels of a mask
        self.threshold = threshold if threshold is not None and any(map(_is_grayscale, files.values())) else None
        self.levels = LevelTally(num_classes)
        # names of class masks with ignored pixels, which only targets may have
        self.with_ignored: list[str] = []
        # names of maps with the levels of a mask of 0 and 1
        self.with_zero_one: list[str] = []

    @property
    def is_grayscale(self) -> bool:
        """Whether the files are thresholded."""
        return self.threshold is not None

    def read(self, id_: Key, problems: Problems) -> np.ndarray | None:
        """Read a mask, uint8 (h, w), or grayscale, float32 (h, w); add a problem and return None if it is neither."""
        file = self.files[id_]
        try:
            content = file.read()
            if self.is_grayscale:
                return self._read_grayscale(file.name, content)
            mask = decode_mask(content, self.num_classes)
            self.levels.add(file.name, mask)
            if self.num_classes > 1 and (mask == IGNORE).any():
                self.with_ignored.append(file.name)
            return mask
        except ValueError as error:
            note_mask_error(error, file.name, problems, num_classes=self.num_classes, gray_levels=GRAY_LEVELS)
        return None

    def _read_grayscale(self, name: str, content: bytes) -> np.ndarray:
        levels = decode_grayscale(content)
        is_zero_one = 0 < levels.max() <= np.float32(1 / 255)
        if self.is_target:
            # a mask of 0 and 1 among soft ones; one whose levels are all below the threshold is refused
            mask = decode_mask(content, threshold=self.threshold)
            return mask.astype(np.float32) if is_zero_one else levels
        if is_zero_one:
            self.with_zero_one.append(name)
        return levels

    def probability(self, levels: np.ndarray, size: tuple[int, int]) -> Tensor | None:
        """Turn the result of `read` into probabilities of a size, float32 (1, h, w); None for masks."""
        return resize_probability(torch.from_numpy(levels)[None, None], size)[0] if self.is_grayscale else None

    def mask(self, levels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Turn the result of `read` into a mask of a size, uint8 (h, w)."""
        probability = self.probability(levels, size)
        if probability is not None and self.threshold is not None:
            return (probability[0] >= self.threshold).to(torch.uint8).numpy()
        if self.num_classes > 1:
            return resize_classes(levels, size, self.num_classes)
        return levels if levels.shape == size else (mask_coverage(levels, size) >= 128).astype(np.uint8)


def _is_one_file(pred: SourceFile, target: SourceFile) -> bool:
    inside = [None if file.member is None else file.member.filename for file in (pred, target)]
    return inside[0] == inside[1] and pred.location.resolve() == target.location.resolve()


def _is_grayscale(file: SourceFile) -> bool:
    try:
        decode_mask(file.read())
    except MaskLevelsError as error:
        return error.rule in (None, FAINT)
    except ValueError:
        # unreadable: `read` reports it
        return False
    return False


def _score(
    id_: str,
    *,
    sides: Sequence[_Side],
    targets: Mapping[str, Target],
    size: tuple[int, int] | None,
    settings: RaterSettings,
    problems: Problems,
) -> tuple[ImageScore, bool, dict[Names, ImageScore]] | None:
    """Score one pair; return also whether the prediction was resized, and the comparisons with raters.

    None, with a problem, if something is wrong.
    """
    pred, target = (side.read(id_, problems) for side in sides)
    keys = targets[id_].keys(id_)
    rated = {rater: target if key == id_ else sides[1].read(key, problems) for rater, key in keys.items()}
    if pred is None or target is None or any(mask is None for mask in rated.values()):
        return None
    h, w = target.shape
    names = " and ".join(side.files[id_].name for side in sides)
    if h != w and pred.shape == (w, h):
        problems.add(SWAPPED, f"{names}: {w} x {h} and {h} x {w} (height x width)")
        return None
    if settings.num_classes > 1 and (pred == IGNORE).any():
        # reported when all masks are read, see `_note_levels`
        return None
    measured_size = size or (h, w)
    pred_mask, target_mask = sides[0].mask(pred, measured_size), sides[1].mask(target, measured_size)
    score = score_image(
        pred_mask,
        target_mask,
        num_classes=settings.num_classes,
        boundary=settings.boundary,
        arguments=settings.arguments,
        probability=sides[0].probability(pred, measured_size),
    )
    masks = {rater: sides[1].mask(mask, measured_size) for rater, mask in rated.items() if mask is not None}
    return score, pred.shape != measured_size, compare_raters(pred_mask, masks, settings) if masks else {}


def _note_levels(sides: Sequence[_Side], problems: Problems) -> None:
    """Add problems with the levels of all masks together."""
    preds, targets = sides
    targets.levels.note_lesion_masks(problems, "masks of the ground truth")
    if not preds.levels.note_lesion_masks(problems, "predicted masks"):
        for name in preds.with_ignored:
            problems.add(IGNORED, name)
