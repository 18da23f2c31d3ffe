"""The images of a set as rules of splits read them, their seeded order, and the advice where a rule does not fit."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction

from mhsvm.data.split_file import PARTS
from mhsvm.text_file import encode


@dataclass(frozen=True)
class Members:
    """The columns of a set that a rule reads: its name, and each image's id, official subset and group."""

    dataset: str
    ids: tuple[str, ...]
    subsets: tuple[str, ...]
    groups: tuple[str, ...]

    def of_subsets(self, *names: str) -> "Members":
        """The images of these official subsets."""
        rows = [row for row, subset in enumerate(self.subsets) if subset in names]
        ids, subsets, groups = (tuple(column[row] for row in rows) for column in (self.ids, self.subsets, self.groups))
        return Members(self.dataset, ids, subsets, groups)

    def units(self, seed: int) -> list[list[str]]:
        """Groups in the seeded order of their first id; an id without a group is a unit by itself."""
        group_of = dict(zip(self.ids, self.groups, strict=True))
        units: dict[tuple[str, str], list[str]] = {}
        for image_id in seeded_order(self.ids, seed=seed):
            group = group_of[image_id]
            units.setdefault(("group", group) if group else ("id", image_id), []).append(image_id)
        return list(units.values())


def suggest_split(groups: Sequence[str], *, training: bool = False, subsets: Sequence[str] = ()) -> str:
    """Advise a split that works for a set of any size.

    Args:
        groups: Group of each image, or "".
        training: Whether images for training and validation are needed.
        subsets: Official subset of each image, or "".
    """
    if training and set(subsets) == {"train", "test"} and subsets.count("train") > 1:
        return "use official-val-10-42, which keeps the official test images"
    num_units = len({*groups} - {""}) + list(groups).count("")
    if num_units < 2:
        rest = f"a training needs at least 2 images or groups, for train and val; the set has {num_units}"
    else:
        rest = "use ratio-70-10-20-42" if num_units >= len(PARTS) else "use ratio-50-50-0-42, without test images"
    return rest if training else f"{rest}, or all to test on every image" if num_units > 1 else f"use all; {rest}"


def seeded_order(ids: Iterable[str], *, seed: int) -> list[str]:
    """Sort ids by sha256("<seed>:<id>")."""
    return sorted(ids, key=lambda image_id: hashlib.sha256(encode(f"{seed}:{image_id}")).digest())


def check_enough(name: str, percentages: Sequence[Fraction], units: Sequence[list[str]], members: Members) -> None:
    """Make sure that each part with a percentage can have an image."""
    needed = sum(percent > 0 for percent in percentages)
    if len(units) < needed:
        raise ValueError(
            f"split {name!r} has {needed} parts and needs at least {needed} images or groups, and {members.dataset} "
            f"has {len(units)}: {suggest_split(members.groups)}"
        )


def shorten(names: Sequence[str], limit: int = 20) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
