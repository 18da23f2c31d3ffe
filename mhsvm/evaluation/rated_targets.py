"""Predictions in files matched with their targets, which may be the masks of several raters."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.mask_files import match_masks
from mhsvm.prepare.pairs import NO_RATER
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.raters import RaterNames, by_rater

NO_PREDICTION = Rule(
    "target without a prediction",
    "add its prediction, or score only the ids of both with `common`; masks of several raters need `raters`",
)
NO_TARGET = Rule("prediction without a target", "add its ground truth, or score only the ids of both with `common`")
NOTHING_COMMON = Rule("no common id", "names agree except for endings such as _segmentation or _prediction")
# Id of an image, for its primary target, or with the name of a rater.
Key = str | tuple[str, str]


@dataclass(frozen=True)
class Target:
    """The targets of an image.

    Attributes:
        primary: The file that names no rater if there is one, else that of the first rater.
        rated: The files of the raters by name, in their order.
    """

    primary: SourceFile
    rated: Mapping[str, SourceFile]

    def keys(self, id_: str) -> dict[str, Key]:
        """Key of each rater's file in `keyed`; a file that is the primary one too has the id alone."""
        return {rater: id_ if file is self.primary else (id_, rater) for rater, file in self.rated.items()}

    def keyed(self, id_: str) -> dict[Key, SourceFile]:
        """All files, each of them once."""
        keys = self.keys(id_)
        return {id_: self.primary, **{keys[rater]: file for rater, file in self.rated.items()}}


def match_rated(
    preds: Mapping[str, list[SourceFile]],
    targets: Mapping[str, list[SourceFile]],
    names: RaterNames,
    problems: Problems,
    *,
    mask_suffix: str | None = None,
) -> tuple[dict[str, SourceFile], dict[str, Target]]:
    """Match predictions with the targets of each rater, and return both by id; see `match_masks`.

    Args:
        preds, targets: Results of `mask_files`.
        names: Finds the rater of each target.
        problems: Receives repeated ids, and raters without a mask.
        mask_suffix: A further ending.
    """
    groups = by_rater(targets, names)
    order = names.order(groups.keys() - {""})
    for rater in (*order, *([] if order or not names else ["any"])):
        if rater not in groups:
            problems.add(NO_RATER, f"{rater}: none among the {len(targets)} masks of the ground truth")
    found_preds: dict[str, SourceFile] = {}
    found: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    for rater, group in groups.items():
        own_preds, own = match_masks(preds, group, problems, mask_suffix=mask_suffix)
        found_preds |= own_preds
        for id_, file in own.items():
            found[id_][rater] = file
    return found_preds, {
        id_: Target(
            primary=files.get("") or next(files[rater] for rater in order if rater in files),
            rated={rater: file for rater, file in files.items() if rater},
        )
        for id_, files in found.items()
    }


def partners(
    preds: Mapping[str, SourceFile], targets: Mapping[str, Target], problems: Problems, *, common: bool
) -> list[str]:
    """Ids of both sides, ascending; a file without a partner is a problem, unless `common` leaves it out."""
    ids = sorted(preds.keys() & targets.keys())
    if not ids:
        problems.add(NOTHING_COMMON, f"such as {min(preds)} and {min(targets)}")
    elif not common:
        for id_ in targets.keys() - preds.keys():
            problems.add(NO_PREDICTION, f"{id_}: {targets[id_].primary.name}")
        for id_ in preds.keys() - targets.keys():
            problems.add(NO_TARGET, f"{id_}: {preds[id_].name}")
    return ids
