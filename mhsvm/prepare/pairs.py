"""Match images with masks by id."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.equal_names import rename_equal
from mhsvm.prepare.formats import is_read
from mhsvm.prepare.named_files import UNREAD, is_image, is_mask, note_duplicates, overview
from mhsvm.prepare.places import folder_role, is_plain, subset_of
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.roles import IMAGE_ENDING, Ending, own_ending, settle_roles, stem_of
from mhsvm.prepare.sources import Source

NO_PAIR = Rule("no pair of an image and a mask", "give every folder or zip file of the set, or one folder around them")
NO_MASK = Rule("image without a mask", "add the folder or zip file with its mask, or remove the image")
NO_IMAGE = Rule("mask without an image", "add the folder or zip file with its image, or remove the mask")
TWO_SUBSETS = Rule("image and mask from different subsets", "put both into the same one of train, val and test")
NO_SUFFIX = Rule("no mask with the given ending", "`mask_suffix` is the end of the masks' names, such as _seg")
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
        problems.add(NO_SUFFIX, f"{mask_suffix}: found {overview(files)}")
    masks = _by_id(masks, images, source, ending, problems)
    for file, role in unread:
        id_, found = (stem_of(file.name), images) if role == "image" else (ending.remove(stem_of(file.name)), masks)
        # another file of that name may be read
        if role and source.id_pattern.fullmatch(id_) and id_ not in found:
            problems.add(UNREAD, file.name)
    images = _without_image_ending(images, masks)
    pairs = _pair_up(*rename_equal(images, masks, subset_of=subset_of, is_plain=is_plain), problems)
    if not pairs:
        problems.add(NO_PAIR, f"looked for {source.looked_for}; found {overview(files)}")
    return pairs


def _without_image_ending(
    images: Mapping[str, list[SourceFile]], masks: Collection[str]
) -> dict[str, list[SourceFile]]:
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in images.items():
        base = IMAGE_ENDING.remove(stem)
        found[base if stem not in masks and base in masks else stem] += files
    return found


def _with_roles(files: Iterable[SourceFile], source: Source, ending: Ending) -> Iterator[tuple[SourceFile, str]]:
    """Images and masks of a source with their role, "image" or "mask"; "" for files that are neither."""
    found = [file for file in files if is_image(file) and not source.leaves_out(file.name)]
    if source.needs_folders:
        stems = [stem_of(file.name) for file in found]
        yield from zip(found, settle_roles(map(folder_role, found), stems, ending), strict=True)
        return
    for file in found:
        yield file, "mask" if is_mask(file, ending) else "image"


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
        note_duplicates(found, problems)
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
