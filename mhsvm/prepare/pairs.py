"""Match images with masks, and masks with masks, by id."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.equal_names import ids_by_place, rename_equal
from mhsvm.prepare.formats import ARCHIVES, NAMES, is_read, unread_kind
from mhsvm.prepare.places import folder_role, is_plain, is_predicted, subset_of
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.roles import (
    MASK_ENDING,
    PREDICTION_ENDING,
    Ending,
    own_ending,
    settle_roles,
    stem_of,
)
from mhsvm.prepare.sources import Source

NO_PAIR = Rule("no pair of an image and a mask", "give every folder or zip file of the set, or one folder around them")
NO_MASK = Rule("image without a mask", "add the folder or zip file with its mask, or remove the image")
NO_IMAGE = Rule("mask without an image", "add the folder or zip file with its image, or remove the mask")
DUPLICATE = Rule(
    "id that occurs twice",
    "give an archive or its extracted folder, not both; rename files of one name; merge masks of one image",
)
TWO_SUBSETS = Rule("image and mask from different subsets", "put both into the same one of train, val and test")
NO_SUFFIX = Rule("no mask with the given ending", "`mask_suffix` is the end of the masks' names, such as _seg")
NO_MASKS = Rule("no mask", "give the folder or zip file that holds them")
UNREAD = Rule("image of a format that is not read", "save it as PNG, or move it away")
# Kinds of files that are left out, by their role.
_USELESS = {
    "image": "images whose names are no ids of this set",
    "mask": "masks whose names have no id of this set or not the given ending",
    "": "images outside the folders of images and masks",
}


@dataclass(frozen=True)
class Pair:
    """Files of an image and its mask; `subset` is "train", "val", "test" or ""."""

    id: str
    image: SourceFile
    mask: SourceFile
    subset: str


def find_pairs(
    files: Iterable[SourceFile], source: Source, problems: Problems, *, mask_suffix: str | None = None
) -> list[Pair]:
    """Pair the images and masks of a source.

    Args:
        files: Files of the source; files of another kind or set are ignored.
        source: Naming rules of the set.
        problems: Receives missing images or masks, repeated ids, and the lack of any pair.
        mask_suffix: End of the masks' names, such as "_seg", which is not part of their ids; None takes usual ones.
    Returns:
        The pairs, by ascending id. Images of equal names in different subsets have ids such as "train/1".
    """
    files, ending = list(files), own_ending(mask_suffix)
    images: dict[str, list[SourceFile]] = defaultdict(list)
    masks: dict[str, list[SourceFile]] = defaultdict(list)
    unread: list[tuple[SourceFile, str]] = []
    for file, role in _with_roles(files, source, ending):
        stem = stem_of(file.name)
        if not is_read(file.name):
            unread.append((file, role))
            continue
        if role == "image" and source.id_pattern.fullmatch(stem):
            images[stem].append(file)
        elif role == "mask" and (mask_suffix is None or ending.is_in(stem)):
            masks[stem].append(file)
        else:
            problems.leave_out(_USELESS[role], file.name)
    if mask_suffix is not None and not masks:
        problems.add(NO_SUFFIX, f"{mask_suffix}: found {_overview(files)}")
    masks = _by_id(masks, images, source, ending, problems)
    for file, role in unread:
        id_, found = (stem_of(file.name), images) if role == "image" else (ending.remove(stem_of(file.name)), masks)
        # another file of that name may be read
        if role and source.id_pattern.fullmatch(id_) and id_ not in found:
            problems.add(UNREAD, file.name)
    pairs = _pair_up(*rename_equal(images, masks, subset_of=subset_of, is_plain=is_plain), problems)
    if not pairs:
        problems.add(NO_PAIR, f"looked for {source.looked_for}; found {_overview(files)}")
    return pairs


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
    """
    files, ending = list(files), _any_ending(mask_suffix, MASK_ENDING)
    images = [file for file in files if _is_image(file)]
    found: dict[str, list[SourceFile]] = defaultdict(list)
    unread: list[SourceFile] = []
    masks = [file for file in images if _is_mask(file, ending)]
    if predicted:
        below = [file for file in images if is_predicted(file)]
        masks = [file for file in below if folder_role(file) == "mask"] or below or masks
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
        problems.add(NO_MASKS, f"{kind}: looked for {NAMES}; found {_overview(files)}")
    return found


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
        _note_duplicates(found, problems)
    one, other = ({id_: same[0] for id_, same in found.items()} for found in sides)
    return one, other


def masks_by_id(
    masks: Mapping[str, list[SourceFile]],
    names: Collection[str],
    problems: Problems,
    *,
    mask_suffix: str | None = None,
) -> dict[str, SourceFile]:
    """Match masks with known ids, and return them by id.

    An ending (`_segmentation`, `_mask`, `_prediction`, …) is not part of an id, unless the known ids have it too. Masks
    of ids such as "test/1", whose names are those of others, are found by their subset or folders.

    Args:
        masks: Result of `mask_files`.
        names: The ids.
        problems: Receives repeated ids.
        mask_suffix: A further ending.
    """
    by_last: dict[str, list[str]] = defaultdict(list)
    for name in names:
        by_last[name.rpartition("/")[2]].append(name)
    found: dict[str, list[SourceFile]] = {}
    for id_, same in _without_endings(masks, by_last, _any_ending(mask_suffix)).items():
        known = [name for name in by_last.get(id_, []) if name != id_]
        if not known or id_ in names:
            found[id_] = same
        for name in known:
            of_name = [file for file in same if name in ids_by_place(file, id_, subset_of=subset_of, is_plain=is_plain)]
            # names that state no subset leave no doubt if there is one file and one id
            found[name] = of_name or (same if len(same) == len(known) == 1 else [])
    _note_duplicates(found, problems)
    return {id_: same[0] for id_, same in found.items() if same}


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


def _is_image(file: SourceFile) -> bool:
    """Whether a file is an image, of a format that is read or not."""
    kind = unread_kind(file.name)
    return is_read(file.name) or (kind is not None and kind not in ARCHIVES)


def _with_roles(files: Iterable[SourceFile], source: Source, ending: Ending) -> Iterator[tuple[SourceFile, str]]:
    """Images and masks of a source with their role, "image" or "mask"; "" for files that are neither."""
    found = [file for file in files if _is_image(file) and not source.leaves_out(file.name)]
    if source.needs_folders:
        stems = [stem_of(file.name) for file in found]
        yield from zip(found, settle_roles(map(folder_role, found), stems, ending), strict=True)
        return
    for file in found:
        yield file, "mask" if _is_mask(file, ending) else "image"


def _is_mask(file: SourceFile, ending: Ending) -> bool:
    return folder_role(file) == "mask" or ending.is_in(stem_of(file.name))


def _note_duplicates(found: Mapping[str, list[SourceFile]], problems: Problems) -> None:
    for id_, same in found.items():
        if len(same) > 1:
            problems.add(DUPLICATE, f"{id_}: {', '.join(file.name for file in same)}")


def _by_id(
    masks: dict[str, list[SourceFile]],
    images: dict[str, list[SourceFile]],
    source: Source,
    ending: Ending,
    problems: Problems,
) -> dict[str, list[SourceFile]]:
    """Group masks by id. An ending is part of the id if an image has it too."""
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in masks.items():
        id_ = stem if stem in images else ending.remove(stem)
        if source.id_pattern.fullmatch(id_):
            found[id_] += files
            continue
        for file in files:
            problems.leave_out(_USELESS["mask"], file.name)
    return found


def _pair_up(
    images: Mapping[str, list[SourceFile]], masks: Mapping[str, list[SourceFile]], problems: Problems
) -> list[Pair]:
    for found in (images, masks):
        _note_duplicates(found, problems)
    for id_ in images.keys() - masks.keys():
        problems.add(NO_MASK, f"{id_}: {images[id_][0].name}")
    for id_ in masks.keys() - images.keys():
        problems.add(NO_IMAGE, f"{id_}: {masks[id_][0].name}")
    return [_pair(id_, images[id_][0], masks[id_][0], problems) for id_ in sorted(images.keys() & masks.keys())]


def _pair(id_: str, image: SourceFile, mask: SourceFile, problems: Problems) -> Pair:
    of_image, of_mask = subset_of(image), subset_of(mask)
    if of_image and of_mask and of_image != of_mask:
        problems.add(TWO_SUBSETS, f"{id_}: {image.name}, {mask.name}")
    return Pair(id_, image, mask, of_image or of_mask)


def _overview(files: list[SourceFile]) -> str:
    """Summarize the most common kinds of files by outer folder."""
    paths = [PurePosixPath(file.name) for file in files]
    kinds = Counter(("/".join(path.parts[:-1][:2]), path.suffix.lower() or "without extension") for path in paths)
    if not kinds:
        return "no files"
    shown = [f"{count} {kind} in {folder}" for (folder, kind), count in kinds.most_common(5)]
    return ", ".join(shown) + (f", ... and {len(kinds) - 5} more kinds" if len(kinds) > 5 else "")
