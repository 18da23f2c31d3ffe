"""Match images with masks, and masks with masks, by id."""

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.formats import ARCHIVES, NAMES, is_read, unread_kind
from mhsvm.prepare.official import folders_from_nearest, official_folder
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.sources import Source

NO_PAIR = Rule("no pair of an image and a mask", "give every folder or zip file of the set, or one folder around them")
NO_MASK = Rule("image without a mask", "add the folder or zip file with its mask, or remove the image")
NO_IMAGE = Rule("mask without an image", "add the folder or zip file with its image, or remove the mask")
DUPLICATE = Rule("id that occurs twice", "give an archive or its extracted folder, not both; rename files of one name")
TWO_SUBSETS = Rule("image and mask from different subsets", "put both into the same one of train, val and test")
NO_MASKS = Rule("no mask", "give the folder or zip file that holds them")
UNREAD = Rule("image of a format that is not read", "save it as PNG, or move it away")

_MASK_ENDING = re.compile(r"_(segmentation|mask|lesion)$", re.IGNORECASE)
_PREDICTION_ENDING = re.compile(r"_(segmentation|mask|lesion|pred(iction)?)$", re.IGNORECASE)
_ROLE_FOLDER = re.compile(r"(?P<image>images?)|(?P<mask>masks?|.*ground_?truth.*)", re.IGNORECASE)
_SUBSET_FOLDER = re.compile(r"train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?", re.IGNORECASE)
_SUBSETS = {"tra": "train", "val": "val", "tes": "test"}


@dataclass(frozen=True)
class Pair:
    """Files of an image and its mask; `subset` is "train", "val", "test" or ""."""

    id: str
    image: SourceFile
    mask: SourceFile
    subset: str


def find_pairs(files: Iterable[SourceFile], source: Source, problems: Problems) -> list[Pair]:
    """Pair the images and masks of a source.

    Args:
        files: Files of the source; files of another kind or set are ignored.
        source: Naming rules of the set.
        problems: Receives missing images or masks, repeated ids, and the lack of any pair.
    Returns:
        The pairs, by ascending id.
    """
    files = list(files)
    images: dict[str, list[SourceFile]] = defaultdict(list)
    masks: dict[str, list[SourceFile]] = defaultdict(list)
    for file in files:
        if not is_read(file.name):
            continue
        role, stem = _role(file, source), PurePosixPath(file.name).stem
        if role == "image" and source.id_pattern.fullmatch(stem):
            images[stem].append(file)
        elif role == "mask":
            masks[stem].append(file)
    masks = _by_id(masks, images, source)
    for found in (images, masks):
        _note_duplicates(found, problems)
    _note_unread(files, source, images, masks, problems)
    for id_ in images.keys() - masks.keys():
        problems.add(NO_MASK, f"{id_}: {images[id_][0].name}")
    for id_ in masks.keys() - images.keys():
        problems.add(NO_IMAGE, f"{id_}: {masks[id_][0].name}")
    pairs = [_pair(id_, images[id_][0], masks[id_][0], problems) for id_ in sorted(images.keys() & masks.keys())]
    if not pairs:
        problems.add(NO_PAIR, f"looked for {source.looked_for}; found {_overview(files)}")
    return pairs


def mask_files(
    files: Iterable[SourceFile], problems: Problems, *, kind: str, all_needed: bool = False
) -> dict[str, list[SourceFile]]:
    """Select the masks, by their names without extension.

    If some files are masks by name (an ending such as `_segmentation`, or a folder such as `masks` or `…_GroundTruth`),
    only these are taken. Otherwise all images are taken.

    Args:
        files: Files to select from.
        problems: Receives the lack of any mask.
        kind: Name of the masks for the message, such as "prediction".
        all_needed: Whether a mask of a format that is not read, without another of its name, is a problem.
    """
    files = list(files)
    images = [file for file in files if is_read(file.name) or _unread_stem(file) is not None]
    found: dict[str, list[SourceFile]] = defaultdict(list)
    unread: list[SourceFile] = []
    for file in [file for file in images if _is_mask(file)] or images:
        if is_read(file.name):
            found[PurePosixPath(file.name).stem].append(file)
        else:
            unread.append(file)
    for file in unread:
        if all_needed and _unread_stem(file) not in found:
            problems.add(UNREAD, file.name)
    if not found:
        problems.add(NO_MASKS, f"{kind}: looked for {NAMES}; found {_overview(files)}")
    return found


def masks_by_id(
    masks: Mapping[str, list[SourceFile]], names: Collection[str], problems: Problems
) -> dict[str, SourceFile]:
    """Match masks with known names, and return them by id.

    An ending (`_segmentation`, `_mask`, `_lesion`, `_prediction`, `_pred`) is not part of an id, unless the known names
    have it too.

    Args:
        masks: Result of `mask_files`.
        names: Ids, or names of the masks to match.
        problems: Receives repeated ids.
    """
    known = {*names, *map(_without_ending, names)}
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in masks.items():
        found[stem if stem in known else _without_ending(stem)] += files
    _note_duplicates(found, problems)
    return {id_: same[0] for id_, same in found.items()}


def _without_ending(stem: str) -> str:
    return _PREDICTION_ENDING.sub("", stem)


def _note_unread(
    files: Iterable[SourceFile], source: Source, images: Collection[str], masks: Collection[str], problems: Problems
) -> None:
    """Add each image or mask whose format is not read, unless there is another of its name that is."""
    for file in files:
        stem, role = _unread_stem(file), _role(file, source)
        if stem is None or role is None:
            continue
        id_ = stem if role == "image" else _MASK_ENDING.sub("", stem)
        if source.id_pattern.fullmatch(id_) and id_ not in (images if role == "image" else masks):
            problems.add(UNREAD, file.name)


def _unread_stem(file: SourceFile) -> str | None:
    """Name without ending of an image whose format is not read."""
    kind = unread_kind(file.name)
    return None if kind is None or kind in ARCHIVES else PurePosixPath(file.name).name[: -len(kind)]


def _role(file: SourceFile, source: Source) -> str | None:
    if source.leaves_out(file.name):
        return None
    if source.needs_folders:
        return _folder_role(file)
    return "mask" if _is_mask(file) else "image"


def _is_mask(file: SourceFile) -> bool:
    return _folder_role(file) == "mask" or _MASK_ENDING.search(PurePosixPath(file.name).stem) is not None


def _folder_role(file: SourceFile) -> str | None:
    """Role by the innermost folder with a known name: "image" or "mask"."""
    for name in folders_from_nearest(file.name):
        if official := official_folder(name):
            return official.role
        if match := _ROLE_FOLDER.fullmatch(name):
            return match.lastgroup
    return None


def _note_duplicates(found: Mapping[str, list[SourceFile]], problems: Problems) -> None:
    for id_, same in found.items():
        if len(same) > 1:
            problems.add(DUPLICATE, f"{id_}: {', '.join(file.name for file in same)}")


def _by_id(
    masks: dict[str, list[SourceFile]], images: dict[str, list[SourceFile]], source: Source
) -> dict[str, list[SourceFile]]:
    """Group masks by id. An ending is part of the id if an image has it too."""
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in masks.items():
        id_ = stem if stem in images else _MASK_ENDING.sub("", stem)
        if source.id_pattern.fullmatch(id_):
            found[id_] += files
    return found


def _pair(id_: str, image: SourceFile, mask: SourceFile, problems: Problems) -> Pair:
    of_image, of_mask = _subset(image), _subset(mask)
    if of_image and of_mask and of_image != of_mask:
        problems.add(TWO_SUBSETS, f"{id_}: {image.name}, {mask.name}")
    return Pair(id_, image, mask, of_image or of_mask)


def _subset(file: SourceFile) -> str:
    """Subset by the innermost folder or archive whose name is one, or states one as an official name."""
    for name in folders_from_nearest(file.name):
        official = official_folder(name)
        subset = official.subset if official else name if _SUBSET_FOLDER.fullmatch(name) else ""
        if subset:
            return _SUBSETS[subset[:3].lower()]
    return ""


def _overview(files: list[SourceFile]) -> str:
    """Summarize the most common kinds of files by outer folder."""
    paths = [PurePosixPath(file.name) for file in files]
    kinds = Counter(("/".join(path.parts[:-1][:2]), path.suffix.lower() or "without extension") for path in paths)
    if not kinds:
        return "no files"
    shown = [f"{count} {kind} in {folder}" for (folder, kind), count in kinds.most_common(5)]
    return ", ".join(shown) + (f", ... and {len(kinds) - 5} more kinds" if len(kinds) > 5 else "")
