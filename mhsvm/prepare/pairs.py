"""Match images with masks by id."""

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.copies import without_copies
from mhsvm.prepare.equal_names import rename_equal
from mhsvm.prepare.formats import is_read
from mhsvm.prepare.named_files import UNREAD, is_image, is_mask, note_duplicates, overview
from mhsvm.prepare.places import folder_role, is_plain
from mhsvm.prepare.places import subset_of as subset_by_folder
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.raters import Rated, RatedFile, RaterNames
from mhsvm.prepare.roles import IMAGE_ENDING, Ending, own_ending, settle_roles, stem_of
from mhsvm.prepare.sources import Source

NO_PAIR = Rule("no pair of an image and a mask", "give every folder or zip file of the set, or one folder around them")
NO_MASK = Rule("image without a mask", "add the folder or zip file with its mask, or remove the image")
NO_IMAGE = Rule(
    "mask without an image",
    "add the folder or zip file with its image, or remove the mask; masks of several raters need `raters`",
)
TWO_SUBSETS = Rule("image and mask from different subsets", "put both into the same one of train, val and test")
NO_RATER = Rule(
    "no mask of a rater", "`raters` are names of folders, as in masks/alice/a.png, or ends of names, as in a_rater1.png"
)
TWO_MASKS = Rule("two masks of one image by one rater", "give each rater one mask an image, or the files other names")
NO_SUFFIX = Rule("no mask with the given ending", "`mask_suffix` is the end of the masks' names, such as _seg")
# Kinds of files that are left out, by their role.
_USELESS = {
    "image": "images whose names are no ids of this set",
    "mask": "masks whose names have no id of this set or not the given ending",
    "": "images outside the folders of images and masks",
}


@dataclass(frozen=True)
class Pair:
    """Files of an image and its masks.

    Attributes:
        id: Unique id in the set.
        image: The image.
        mask: The primary mask: the one without a rater if there is one, else that of the first rater.
        subset: "train", "val", "test" or "".
        rated: The masks of all raters, in the order of the raters; empty for sets with one mask an image.
        parts: Further files with lesions of the primary mask.
    """

    id: str
    image: SourceFile
    mask: SourceFile
    subset: str
    rated: tuple[RatedFile, ...] = ()
    parts: tuple[SourceFile, ...] = ()

    @property
    def masks(self) -> tuple[SourceFile, ...]:
        """The files of all masks, the primary one first."""
        return tuple(dict.fromkeys([self.mask, *self.parts, *(each.file for each in self.rated)]))


def find_pairs(
    files: Iterable[SourceFile],
    source: Source,
    problems: Problems,
    *,
    mask_suffix: str | None = None,
    raters: Sequence[str] | None = None,
    merge_masks: bool = False,
) -> list[Pair]:
    """Pair the images and masks of a source.

    Args:
        files: Files of the source; files of another kind or set are ignored.
        source: Naming rules of the set.
        problems: Receives missing images or masks, repeated ids, and the lack of any pair.
        mask_suffix: End of the masks' names, such as "_seg", which is not part of their ids; None takes usual ones.
        raters: Names of the raters of a set with several masks an image, see `RaterNames`; None pairs each image with
            one mask, unless the source has raters itself.
        merge_masks: Whether several masks of an image without a rater are parts of one.
    Returns:
        The pairs, by ascending id. Images of equal names in different subsets have ids such as "train/1".
    """
    files, ending, names = list(files), own_ending(mask_suffix), RaterNames(source, raters)
    images: dict[str, list[SourceFile]] = defaultdict(list)
    # masks of each rater by id; those without a rater are under ""
    masks: dict[str, dict[str, list[SourceFile]]] = defaultdict(lambda: defaultdict(list))
    rated = _rated(files, names)
    unread: list[tuple[SourceFile, str]] = []
    for file, role in _with_roles(files, source, ending, rated):
        stem = stem_of(file.name)
        if not is_read(file.name):
            unread.append((file, role))
            continue
        if source.unused_pattern is not None and source.unused_pattern.fullmatch(stem):
            problems.leave_out(source.unused_kind, file.name)
            continue
        rater = rated[file][1].rater if file in rated else ""
        mask_stem = rated[file][0] if file in rated else stem
        if role == "image" and source.is_id(stem, file.name):
            images[stem].append(file)
        elif role == "mask" and (mask_suffix is None or ending.is_in(stem) or ending.is_in(mask_stem)):
            masks[rater][mask_stem].append(file)
        else:
            problems.leave_out(_USELESS[role], file.name)
    if mask_suffix is not None and not masks:
        problems.add(NO_SUFFIX, f"{mask_suffix}: found {overview(files)}")
    for rater in raters or (() if raters is None or masks.keys() - {""} else ("any",)):
        if rater not in masks:
            problems.add(NO_RATER, f"{rater}: found {overview(files)}")
    by_rater = {rater: _by_id(own, images, source, ending, problems) for rater, own in masks.items()}
    all_masks = {id_ for own in by_rater.values() for id_ in own}
    for file, role in unread:
        id_, found = (stem_of(file.name), images) if role == "image" else (ending.remove(stem_of(file.name)), all_masks)
        # another file of that name may be read
        if role and source.is_id(id_, file.name) and id_ not in found:
            problems.add(UNREAD, file.name)
    images = _without_image_ending(images, all_masks)
    if source.official:
        images, *own = without_copies([images, *by_rater.values()], problems)
        by_rater = dict(zip(by_rater, own, strict=True))
    pairs = _pair_up(images, by_rater, rated, names, source, problems, merge_masks=merge_masks)
    if not pairs:
        problems.add(NO_PAIR, f"looked for {source.looked_for}; found {overview(files)}")
    return pairs


def _rated(files: Iterable[SourceFile], names: RaterNames) -> Rated:
    """Name without rater, and rater, of the files that name one."""
    if not names:
        return {}
    found = ((file, names.read(file)) for file in files if is_image(file) and folder_role(file) != "image")
    return names.number_repeated({file: read for file, read in found if read is not None})


def _without_image_ending(
    images: Mapping[str, list[SourceFile]], masks: Collection[str]
) -> dict[str, list[SourceFile]]:
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in images.items():
        base = IMAGE_ENDING.remove(stem)
        found[base if stem not in masks and base in masks else stem] += files
    return found


def _with_roles(
    files: Iterable[SourceFile], source: Source, ending: Ending, rated: Collection[SourceFile]
) -> Iterator[tuple[SourceFile, str]]:
    """Images and masks of a source with their role, "image" or "mask"; "" for files that are neither."""
    found = [file for file in files if is_image(file) and not source.leaves_out(file.name)]
    if source.needs_folders:
        roles = settle_roles(map(folder_role, found), [stem_of(file.name) for file in found], ending)
    else:
        roles = ["mask" if is_mask(file, ending) else "image" for file in found]
    for file, role in zip(found, roles, strict=True):
        # a file that names a rater is a mask
        yield file, "mask" if file in rated else role


def _by_id(
    masks: Mapping[str, list[SourceFile]],
    images: Mapping[str, list[SourceFile]],
    source: Source,
    ending: Ending,
    problems: Problems,
) -> dict[str, list[SourceFile]]:
    """Group masks by id. An ending is part of the id if an image has it too."""
    found: dict[str, list[SourceFile]] = defaultdict(list)
    for stem, files in masks.items():
        id_ = stem if stem in images else ending.remove(stem)
        for file in files:
            if source.is_id(id_, file.name):
                found[id_].append(file)
            else:
                problems.leave_out(_USELESS["mask"], file.name)
    return found


def _pair_up(
    images: Mapping[str, list[SourceFile]],
    masks: Mapping[str, Mapping[str, list[SourceFile]]],
    rated: Rated,
    names: RaterNames,
    source: Source,
    problems: Problems,
    *,
    merge_masks: bool,
) -> list[Pair]:
    """Pairs of images and the masks of each rater, by id."""

    def plain(name: str) -> bool:
        return is_plain(name) and not names.is_folder(name)

    def subset_of(file: SourceFile) -> str:
        return subset_by_folder(file) if source.has_subsets else ""

    found: dict[str, list[SourceFile]] = {}
    masks_of: dict[str, dict[str, SourceFile]] = defaultdict(dict)
    parts: dict[str, tuple[SourceFile, ...]] = {}
    order = names.order(masks.keys() - {""})
    for rater in ("", *order):
        # images and masks of one name have ids of their own, the same for each rater; a public set has none of one name
        renamed, own = dict(images), dict(masks.get(rater, {}))
        if not source.official:
            renamed, own = rename_equal(renamed, own, subset_of=subset_of, is_plain=plain)
        found |= renamed
        if merge_masks and not rater:
            parts = {id_: tuple(same[1:]) for id_, same in own.items()}
        else:
            _note_two_masks(own, rater, problems)
        for id_, same in own.items():
            masks_of[id_][rater] = same[0]
    note_duplicates(found, problems)
    for id_ in found.keys() - masks_of.keys():
        problems.add(NO_MASK, f"{id_}: {found[id_][0].name}")
    for id_ in masks_of.keys() - found.keys():
        problems.add(NO_IMAGE, f"{id_}: {next(iter(masks_of[id_].values())).name}")
    pairs = []
    for id_ in sorted(found.keys() & masks_of.keys()):
        of_raters = tuple(rated[masks_of[id_][rater]][1] for rater in order if rater in masks_of[id_])
        primary = masks_of[id_].get("") or of_raters[0].file
        pair = Pair(id_, found[id_][0], primary, subset_of(found[id_][0]), of_raters, parts.get(id_, ()))
        pairs.append(_with_subset(pair, subset_of, problems))
    return pairs


def _note_two_masks(masks: Mapping[str, list[SourceFile]], rater: str, problems: Problems) -> None:
    if not rater:
        note_duplicates(masks, problems)
        return
    for id_, same in masks.items():
        if len(same) > 1:
            problems.add(TWO_MASKS, f"{id_}, {rater}: {', '.join(file.name for file in same)}")


def _with_subset(pair: Pair, subset_of: Callable[[SourceFile], str], problems: Problems) -> Pair:
    """The pair with the subset of its mask, if its image has none; they must not differ."""
    for file in pair.masks:
        of_mask = subset_of(file)
        if pair.subset and of_mask and pair.subset != of_mask:
            problems.add(TWO_SUBSETS, f"{pair.id}: {pair.image.name}, {file.name}")
    return replace(pair, subset=pair.subset or subset_of(pair.mask))
