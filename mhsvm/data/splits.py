"""Splits by name into training, validation and test images.

A rule uses ids, official subsets and groups, but no images, so a split can be reproduced anywhere and compared by its
hash. A seeded order is the order of sha256("<seed>:<id>"), which is independent of libraries.

Seeded splits keep groups together (patient, lesion or near-duplicates; "" is no group). Ids are visited in seeded
order, and each takes its whole group along. The group goes to the first of train, val and test with enough room, or
else to the part with the most room. Counts are exact without groups, and off by less than the largest group with them.
Percentages give each part at least one image, as long as there are enough images or groups.
"""

import functools
import logging
import re
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction

from mhsvm.data.assignment import counts_by_percent, fill_every_part, fill_parts
from mhsvm.data.members import Members, check_enough, seeded_order, shorten, suggest_split
from mhsvm.data.split_file import PARTS, UNUSED, VAL_AND_TEST, Split, SplitFile
from mhsvm.nearest import did_you_mean
from mhsvm.registry import Registry

__all__ = ["Split", "list_splits", "make_split", "register_split", "seeded_order", "suggest_split"]

# UltraLight VM-UNet's counts, for the official training archive alone (arXiv 2403.20035).
WU_COUNTS = {"isic2017": (1250, 150, 600), "isic2018": (1815, 259, 520)}
# VM-UNet's counts for the complete official training and validation subsets (arXiv 2402.02491). They are rounded: an
# exact 7:3 split of 2150 is 1505 / 645.
VMUNET_COUNTS = {("isic2017", 2150): (1500, 650), ("isic2018", 2694): (1886, 808)}
# Images of IMA++ with several masks in its train.csv, val.csv and test.csv (arXiv 2512.21472).
IMAPLUSPLUS_COUNTS = (1675, 240, 479)

_LOG = logging.getLogger(__name__)


Rule = Callable[..., dict[str, str]]
SPLITS: Registry[Rule] = Registry("split")


def register_split(form: str) -> Callable[[Rule], Rule]:
    """Register a rule (members, *arguments) -> {id: part} for names of a form.

    Args:
        form: Such as "halves-<seed>". Arguments are passed as text: <n> is a whole number, <n%> a percentage, PATH
            the rest.
    Raises:
        ValueError: The form is taken.
    """
    return SPLITS.register(form)


@functools.cache
def _pattern(form: str) -> re.Pattern[str]:
    pattern = re.sub(r"<\w+%>", r"(\\d+(?:\\.\\d+)?)", form)
    return re.compile(re.sub(r"<\w+>", r"(\\d+)", pattern).replace("PATH", "(.+)"))


def list_splits() -> tuple[str, ...]:
    """The forms of names that `make_split` knows."""
    return SPLITS.names()


def make_split(name: str, *, ids: Sequence[str], subsets: Sequence[str], groups: Sequence[str], dataset: str) -> Split:
    """Split a set by a named protocol.

    Args:
        name: A name that has a form of `list_splits()`, such as "wu-sorted" or "kfold-5-42-0".
        ids: Unique id of each image, in the order of the set.
        subsets: Official subset of each image: "train", "val", "test", or "" if it has none.
        groups: Group of each image, or "". A seeded split keeps a group in one part. For k-fold, also pass
            near-duplicates as groups (`mhsvm.leakage.duplicate_groups`).
        dataset: Name of the set, such as "isic2017", because some protocols are defined for certain sets only.
    Returns:
        The split, with parts in the order of `ids`.
    Raises:
        ValueError: The name is unknown, or the protocol is not defined for the set.
        FileNotFoundError: The file of "file:PATH" does not exist.
    """
    if not len(ids) == len(subsets) == len(groups):
        raise ValueError(f"ids, subsets and groups are equally long, got {len(ids)}, {len(subsets)} and {len(groups)}")
    repeated = [image_id for image_id, times in Counter(ids).items() if times > 1]
    if repeated:
        raise ValueError(f"ids are unique; repeated: {shorten(repeated)}")
    members = Members(dataset, tuple(ids), tuple(subsets), tuple(groups))
    for form, rule in SPLITS.items():
        if match := _pattern(form).fullmatch(name):
            parts = rule(members, *match.groups())
            return Split(name, {image_id: parts[image_id] for image_id in ids if image_id in parts})
    raise ValueError(f"unknown split {name!r}; known: {', '.join(list_splits())}{did_you_mean(name, list_splits())}")


@register_split("official")
def _official(members: Members) -> dict[str, str]:
    parts = dict(zip(members.ids, members.subsets, strict=True))
    without = [image_id for image_id, subset in parts.items() if subset not in PARTS]
    if without:
        raise ValueError(
            f"split 'official' needs the official subset of every image, and {len(without)} of {len(parts)} "
            f"images of {members.dataset} have none: {suggest_split(members.groups)} ({shorten(without)})"
        )
    return parts


@register_split("wu-sorted")
def _wu_sorted(members: Members) -> dict[str, str]:
    # The published rule is an order of ids: groups are not looked at.
    training, counts = _wu_training(members, name="wu-sorted")
    return fill_parts([[image_id] for image_id in sorted(training.ids)], counts)


@register_split("wu-shuffled-<seed>")
def _wu_shuffled(members: Members, seed: str) -> dict[str, str]:
    training, counts = _wu_training(members, name="wu-shuffled")
    return fill_parts(training.units(int(seed)), counts)


@register_split("vmunet-7-3")
@register_split("vmunet-7-3-<seed>")
def _vmunet(members: Members, seed: str = "42") -> dict[str, str]:
    """Split the official training and validation subsets 7:3; if they are not complete, by 70 % rounded."""
    pool = members.of_subsets("train", "val")
    total = len(pool.ids)
    if not total:
        raise ValueError(
            f"split 'vmunet-7-3' divides the official training and validation subsets, and {members.dataset} "
            f"has none: {suggest_split(members.groups)}"
        )
    percentages, units = (Fraction(70), Fraction(0), Fraction(30)), pool.units(int(seed))
    check_enough(f"vmunet-7-3-{seed}", percentages, units, members)
    train, _, test = counts_by_percent(total, percentages)
    train, test = VMUNET_COUNTS.get((members.dataset, total), (train, test))
    parts = fill_every_part(units, (train, 0, test))
    _LOG.warning(
        "split vmunet-7-3: as in the published protocol, its validation images are its test images, so the checkpoint "
        "is selected on the test data: use this split for comparison only"
    )
    return {image_id: part if part == "train" else VAL_AND_TEST for image_id, part in parts.items()}


@register_split("kfold-<k>-<seed>-<fold>")
def _kfold(members: Members, k: str, seed: str, fold: str) -> dict[str, str]:
    """Use fold `fold` for the test, the next one (cyclically) for validation, and the others for training.

    Larger groups are assigned first, each to the smallest fold so far, so that fold sizes stay close.
    """
    num_folds, held_out = int(k), int(fold)
    units = sorted(members.units(int(seed)), key=len, reverse=True)
    if len(units) < 3:
        raise ValueError(
            f"k-fold needs 3 or more images or groups, {members.dataset} has {len(units)}: "
            f"{suggest_split(members.groups)}"
        )
    if num_folds < 3:
        raise ValueError(f"k-fold needs k >= 3: one fold tests, one validates, the others train; got {k}")
    if held_out >= num_folds:
        raise ValueError(f"the fold of kfold-{k}-{seed} is 0 to {num_folds - 1}, got {fold}")
    if num_folds > len(units):
        raise ValueError(f"{k} folds need {k} images or groups, {members.dataset} has {len(units)}: lower k")
    folds: list[list[str]] = [[] for _ in range(num_folds)]
    for unit in units:
        min(folds, key=len).extend(unit)
    part_of = {held_out: "test", (held_out + 1) % num_folds: "val"}
    return {image_id: part_of.get(row, "train") for row, ids in enumerate(folds) for image_id in ids}


@register_split("counts-<train>-<val>-<test>-<seed>")
def _counts(members: Members, train: str, val: str, test: str, seed: str) -> dict[str, str]:
    counts = int(train), int(val), int(test)
    if sum(counts) != len(members.ids):
        raise ValueError(
            f"split counts-{train}-{val}-{test} needs {sum(counts)} images, {members.dataset} has "
            f"{len(members.ids)}: change the counts, or {suggest_split(members.groups)}"
        )
    return fill_parts(members.units(int(seed)), counts)


@register_split("ratio-<train%>-<val%>-<test%>-<seed>")
def _ratio(members: Members, train: str, val: str, test: str, seed: str) -> dict[str, str]:
    percentages = Fraction(train), Fraction(val), Fraction(test)
    if sum(percentages) != 100:
        raise ValueError(
            f"the percentages of a ratio split add up to 100, got {train} + {val} + {test}"
            f" = {float(sum(percentages)):g}"
        )
    units = members.units(int(seed))
    check_enough(f"ratio-{train}-{val}-{test}-{seed}", percentages, units, members)
    return fill_every_part(units, counts_by_percent(len(members.ids), percentages))


@register_split("official-val-<val%>-<seed>")
def _official_val(members: Members, val: str, seed: str) -> dict[str, str]:
    """Take the validation images from the official training subset of a set that has none, such as ISIC 2016."""
    parts = _official(members)
    if "val" in parts.values():
        raise ValueError(f"split 'official-val-{val}-{seed}': {members.dataset} has validation images: use official")
    if not 0 < Fraction(val) < 100:
        raise ValueError(f"the percentage of official-val-{val}-{seed} is between 0 and 100, as in official-val-10-42")
    training, percentages = members.of_subsets("train"), (100 - Fraction(val), Fraction(val), Fraction(0))
    units = training.units(int(seed))
    check_enough(f"official-val-{val}-{seed}", percentages, units, training)
    return parts | fill_every_part(units, counts_by_percent(len(training.ids), percentages))


@register_split("multi-annotator")
def _multi_annotator(members: Members) -> dict[str, str]:
    """The lists that IMA++ publishes of its images with several masks; other images are left out."""
    parts = {image_id: part for image_id, part in zip(members.ids, members.subsets, strict=True) if part in PARTS}
    counts = tuple(Counter(parts.values())[part] for part in PARTS)
    if members.dataset != "imaplusplus" or counts != IMAPLUSPLUS_COUNTS:
        raise ValueError(
            f"split 'multi-annotator' is defined for imaplusplus, whose train.csv, val.csv and test.csv list "
            f"{'/'.join(map(str, IMAPLUSPLUS_COUNTS))} images; {members.dataset} has {'/'.join(map(str, counts))}: "
            f"prepare the complete set with these files, or {suggest_split(members.groups)}"
        )
    return parts


@register_split("file:PATH")
def _file(members: Members, path: str) -> dict[str, str]:
    file = SplitFile.read(path, members.ids)
    if file.unknown:
        file.problems.append(f"{len(file.unknown)} ids are not in {members.dataset}: {shorten(file.unknown)}")
    missing = [image_id for image_id in members.ids if image_id not in file.parts]
    # A saved split omits the ids that its protocol leaves out; a list made by hand must mark them.
    if missing and file.name is None:
        file.problems.append(
            f"{len(missing)} ids of {members.dataset} have no part (write '{UNUSED}' to leave one out): "
            f"{shorten(missing)}"
        )
    elif missing and not file.problems:
        _LOG.info("%s leaves out %d of %d images of %s", path, len(missing), len(members.ids), members.dataset)
    file.raise_problems()
    return file.used_parts


@register_split("all")
def _all(members: Members) -> dict[str, str]:
    return dict.fromkeys(members.ids, "test")


def _wu_training(members: Members, *, name: str) -> tuple[Members, tuple[int, int, int]]:
    """Return the official training subset and the published counts, after checking that they fit."""
    if members.dataset not in WU_COUNTS:
        raise ValueError(
            f"split '{name}' is defined for {' and '.join(WU_COUNTS)}, got {members.dataset}: "
            f"{suggest_split(members.groups)}"
        )
    counts = WU_COUNTS[members.dataset]
    training = members.of_subsets("train")
    if len(training.ids) != sum(counts):
        raise ValueError(
            f"split '{name}' divides the {sum(counts)} images of {members.dataset}'s official training "
            f"subset into {'/'.join(map(str, counts))}, and this set has {len(training.ids)} of them: "
            f"prepare the complete training archive, or {suggest_split(members.groups)}"
        )
    return training, counts
