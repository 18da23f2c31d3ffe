"""The choice of the images that test a checkpoint, with its reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mhsvm.data.split_file import PARTS, VAL_AND_TEST, Split
from mhsvm.leakage import holds_recorded_ids
from mhsvm.store import PreparedSet

# The split that the authors of the published files report on.
PUBLISHED_ISIC_SPLIT = "vmunet-7-3"


@dataclass(frozen=True)
class Protocol:
    """A choice of test images.

    Attributes:
        split: Its part "test" is measured.
        reason: The reason for this split, in words.
        trained_on: Number of test images that the checkpoint was trained on, by id; None if it is not recorded.
        chosen_on: Number of test images among the validation images that chose it; None if it is not recorded.
    """

    split: Split
    reason: str
    trained_on: int | None
    chosen_on: int | None

    @property
    def ids(self) -> tuple[str, ...]:
        """The test images."""
        return self.split.ids("test")


def choose_protocol(
    prepared: PreparedSet,
    *,
    recorded: Mapping | None,
    asked: str | None,
    make_split: Callable[[str], Split],
) -> Protocol:
    """Choose the test images of a checkpoint in a set.

    A split that is asked for comes first. Next comes the checkpoint's own split, if it was trained on this set. A
    published file on ISIC is tested by its authors' protocol. In all other cases every image is a test image.

    Args:
        prepared: The set.
        recorded: The checkpoint's record of its data, see `mhsvm.assemble.describe_data`; None if published.
        asked: Name of a split, or None.
        make_split: Makes the split of a name for this set.
    Raises:
        ValueError: The split has no test part.
    """
    if asked is not None:
        split, reason = make_split(asked), "asked for"
    elif recorded is None and prepared.name.startswith("isic"):
        split, reason = make_split(PUBLISHED_ISIC_SPLIT), "its authors' protocol; their own images are not recorded"
    elif recorded is None:
        split, reason = make_split("all"), "a published file, and not its authors' own data"
    elif prepared.checksum == recorded["checksum"]:
        split, reason = _recorded_split(recorded), "the checkpoint's own; it was trained on this set"
    elif holds_recorded_ids(prepared, recorded):
        split = _recorded_split(recorded)
        reason = "the checkpoint's own; this set has the ids of its training set, but was prepared otherwise"
    else:
        other = f", {recorded['name']}" if prepared.name != recorded["name"] else f" that is called {prepared.name} too"
        split, reason = make_split("all"), f"the checkpoint was trained on another set{other}"
    ids = set(split.ids("test"))
    if not ids:
        raise ValueError(
            f"split {split.name!r} of {prepared.path} has no test part: name another one with `split`, such as 'all'"
        )
    seen = {part: None if recorded is None else len(ids & set(recorded[f"{part}_ids"])) for part in ("train", "val")}
    return Protocol(split=split, reason=reason, trained_on=seen["train"], chosen_on=seen["val"])


def _recorded_split(recorded: Mapping) -> Split:
    """The split that a checkpoint was trained with, from the recorded ids."""
    parts: dict[str, str] = {}
    for part in PARTS:
        for image_id in recorded[f"{part}_ids"]:
            parts[image_id] = VAL_AND_TEST if parts.get(image_id) == "val" else part
    split = Split(recorded["split"], parts)
    if split.hash != recorded["split_hash"]:
        raise ValueError(
            f"the ids that the checkpoint records have the hash {split.hash[:12]}…, but it calls its split "
            f"{split.name} {recorded['split_hash'][:12]}…: it was changed. Name a split with `split`"
        )
    return split
