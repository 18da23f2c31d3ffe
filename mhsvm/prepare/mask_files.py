"""Match masks with masks, or with known ids, by id."""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.equal_names import ids_by_place, rename_equal
from mhsvm.prepare.formats import NAMES, is_read
from mhsvm.prepare.named_files import UNREAD, is_image, is_mask, note_duplicates, overview
from mhsvm.prepare.places import folder_role, is_plain, is_predicted, subset_of
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.roles import MASK_ENDING, PREDICTION_ENDING, Ending, own_ending, stem_of

NO_MASKS = Rule("no mask", "give the folder or zip file that holds them")


def mask_files(
    files: Iterable[SourceFile],
    problems: Problems,
    *,
    kind: str,
    mask_suffix: str | None = None,
    all_needed: bool = False,
    predicted: bool = False,
) -> dict[str, list[SourceFile]]:
    """Select the masks, by their names without extension.

    If some files are masks by name (an ending such as `_segmentation`, or a folder such as `masks` or `…_GroundTruth`),
    only these are taken. Otherwise all images are taken. Those that are left out are counted.

    Args:
        files: Files to select from.
        problems: Receives the lack of any mask.
        kind: Name of the masks for the message, such as "prediction".
        mask_suffix: A further ending of masks.
        all_needed: Whether a mask of a format that is not read, without another of its name, is a problem.
        predicted: Take those in a folder such as `pred`, if there is one: tools write it next to a copy of the targets.
            From predictions of this program, take those in `masks`, in whichever folders the images were.
    """
    files, ending = list(files), _any_ending(mask_suffix, MASK_ENDING)
    images = [file for file in files if is_image(file)]
    written = _written_masks(files, images) if predicted else []
    found: dict[str, list[SourceFile]] = defaultdict(list)
    unread: list[SourceFile] = []
    masks = [file for file in images if is_mask(file, ending)]
    if predicted:
        below = [file for file in images if is_predicted(file)]
        masks = written or [file for file in below if folder_role(file) == "mask"] or below or masks
    chosen = set(masks)
    for file in images:
        if chosen and file not in chosen:
            if is_read(file.name):
                problems.leave_out("images that are no masks by their names", file.name)
        elif is_read(file.name):
            found[stem_of(file.name)].append(file)
        else:
            unread.append(file)
    for file in unread:
        if all_needed and stem_of(file.name) not in found:
            problems.add(UNREAD, file.name)
    if not found:
        problems.add(NO_MASKS, f"{kind}: looked for {NAMES}; found {overview(files)}")
    return found


def _written_masks(files: Iterable[SourceFile], images: Iterable[SourceFile]) -> list[SourceFile]:
    """Masks in folders of predictions of this program, which hold overlays and others beside them."""
    names = {file.name for file in files}
    folders = {name.removesuffix("/predictions.jsonl") for name in names if name.endswith("/predictions.jsonl")}
    written = tuple(f"{folder}/masks/" for folder in folders if f"{folder}/settings.json" in names)
    return [file for file in images if file.name.startswith(written)]


def match_masks(
    first: Mapping[str, list[SourceFile]],
    second: Mapping[str, list[SourceFile]],
    problems: Problems,
    *,
    mask_suffix: str | None = None,
) -> tuple[dict[str, SourceFile], dict[str, SourceFile]]:
    """Name the masks of two sides alike, and return those of each side by id.

    An ending (`_segmentation`, `_mask`, `_prediction`, …) is not part of an id, unless the other side has it too.

    Args:
        first, second: Results of `mask_files`.
        problems: Receives repeated ids.
        mask_suffix: A further ending.
    """
    ending = _any_ending(mask_suffix)
    sides = _without_endings(first, second, ending), _without_endings(second, first, ending)
    sides = rename_equal(*sides, subset_of=subset_of, is_plain=is_plain)
    for found in sides:
        note_duplicates(found, problems)
    one, other = ({id_: same[0] for id_, same in found.items()} for found in sides)
    return one, other


def masks_by_id(
    masks: Mapping[str, list[SourceFile]],
    names: Collection[str],
    problems: Problems,
    *,
    mask_suffix: str | None = None,
    merge_masks: bool = False,
) -> dict[str, list[SourceFile]]:
    """Match masks with known ids, and return them by id: one each, or with `merge_masks` all parts of each.

    An ending (`_segmentation`, `_mask`, `_prediction`, …) is not part of an id, unless the known ids have it too. Masks
    of ids such as "test/1", whose names are those of others, are found by their subset or folders.

    Args:
        masks: Result of `mask_files`.
        names: The ids.
        problems: Receives repeated ids.
        mask_suffix: A further ending.
        merge_masks: Whether several masks of an id are parts of one.
    """
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_last[name.rpartition("/")[2]].append(name)
    found: dict[str, list[SourceFile]] = {}
    # parts of a mask have numbers: a_mask_1
    ending = _any_ending(mask_suffix, MASK_ENDING if merge_masks else PREDICTION_ENDING)
    for id_, same in _without_endings(masks, by_last, ending).items():
        known = [name for name in by_last.get(id_, []) if name != id_]
        if not known or id_ in names:
            found[id_] = same
        for name in known:
            of_name = [file for file in same if name in ids_by_place(file, id_, subset_of=subset_of, is_plain=is_plain)]
            # names that state no subset leave no doubt if there is one file and one id
            found[name] = of_name or (same if len(same) == len(known) == 1 else [])
    if not merge_masks:
        note_duplicates(found, problems)
    return {id_: same if merge_masks else same[:1] for id_, same in found.items() if same}


def _any_ending(mask_suffix: str | None, usual: Ending = PREDICTION_ENDING) -> Ending:
    """The usual endings, and one of the user."""
    if mask_suffix is None:
        return usual
    patterns = own_ending(mask_suffix).pattern.pattern, usual.pattern.pattern
    return Ending(re.compile("|".join(patterns), re.IGNORECASE))


def _without_endings(
    masks: Mapping[str, list[SourceFile]], others: Collection[str], ending: Ending
) -> dict[str, list[SourceFile]]:
    known = {*others, *map(ending.remove, others)}
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in masks.items():
        found[stem if stem in known else ending.remove(stem)] += files
    return found
