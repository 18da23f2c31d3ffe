"""Several models whose probabilities are averaged: whether they fit together, and their threshold."""

from collections.abc import Sequence
from typing import Protocol


class Member(Protocol):
    """The facts about a model that others are compared with."""

    @property
    def name(self) -> str: ...
    @property
    def size(self) -> tuple[int, int]: ...
    @property
    def num_classes(self) -> int: ...
    @property
    def normalization(self) -> str: ...
    @property
    def threshold(self) -> float: ...


def check_members(members: Sequence[Member]) -> None:
    """Check that models can be averaged.

    Raises:
        ValueError: There is none, or they differ in a fact.
    """
    if not members:
        raise ValueError("a predictor needs at least one checkpoint; received none")
    check_equal("image sizes", members, [member.size for member in members])
    check_equal("normalizations", members, [member.normalization for member in members])
    check_equal("numbers of classes", members, [member.num_classes for member in members])


def choose_threshold(members: Sequence[Member], threshold: float | None) -> float:
    """The given threshold, else that of the models.

    Raises:
        ValueError: Those of the models differ, or it is outside of 0..1.
    """
    if threshold is None:
        thresholds = [member.threshold for member in members]
        check_equal("thresholds", members, thresholds, remedy=" or give a threshold for all")
        threshold = float(thresholds[0])
    if not 0 <= threshold <= 1:
        raise ValueError(f"the threshold is a probability, 0 to 1; received {threshold}")
    return threshold


def check_equal(name: str, members: Sequence[Member], values: Sequence[object], *, remedy: str = "") -> None:
    """Raise ValueError if the models have different values of `name`, a plural."""
    for member, value in zip(members, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"checkpoints that are averaged have equal {name}; received {members[0].name} with {values[0]} and "
                f"{member.name} with {value}. Predict with each alone{remedy}"
            )
