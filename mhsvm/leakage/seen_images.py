"""Test images that a checkpoint has seen in training."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mhsvm.data.split_file import PARTS
from mhsvm.leakage.leaks import ONLY_ID, SAME_ID, Leak, find_leaks, leaks_between
from mhsvm.store import PreparedSet


@dataclass(frozen=True)
class Leakage:
    """Pairs of a training image and a test image that are equal or show one lesion.

    Attributes:
        leaks: `id_a` is a training image, `id_b` a test image.
        training_set: File of the set of `id_a`; None if images were not compared.
        unknown: Reason why images or ids were not compared; None if both were.
    """

    leaks: tuple[Leak, ...]
    training_set: Path | None
    unknown: str | None

    @property
    def seen(self) -> frozenset[str]:
        """Ids of the test images that are in training, or have a near-duplicate there."""
        return frozenset(leak.id_b for leak in self.leaks if leak.kind != ONLY_ID)

    def counts(self) -> dict[str, int]:
        """Number of test images by the most certain kind of their leaks."""
        # leaks are sorted by certainty
        kind_of: dict[str, str] = {}
        for leak in self.leaks:
            kind_of.setdefault(leak.id_b, leak.kind)
        kinds = list(kind_of.values())
        return {kind: kinds.count(kind) for kind in dict.fromkeys(kinds)}


def find_leakage(
    prepared: PreparedSet,
    test_ids: Sequence[str],
    *,
    recorded: Mapping | None,
    open_training_set: Callable[[], PreparedSet],
) -> Leakage:
    """Compare the training images of a checkpoint with test images, by ids, pixels and near-duplicates.

    Args:
        prepared: The test set.
        test_ids: Ids of its test part.
        recorded: The checkpoint's description of its data, see `mhsvm.assemble.describe_data`; None if published.
        open_training_set: Opens the set that the checkpoint's config names; raises FileNotFoundError or ValueError
            if it is not available.
    """
    if recorded is None:
        return Leakage((), None, "the checkpoint does not record which images it was trained on")
    if prepared.checksum == recorded["checksum"] or holds_recorded_ids(prepared, recorded):
        leaks = leaks_between(find_leaks(prepared), recorded["train_ids"], test_ids)
        return Leakage(tuple(leaks), prepared.path, None)
    train, test = set(recorded["train_ids"]), set(test_ids)
    try:
        training_set = open_training_set()
    except (FileNotFoundError, ValueError) as error:
        return _by_id_alone(train, test_ids, str(error))
    with training_set:
        if training_set.checksum != recorded["checksum"]:
            return _by_id_alone(train, test_ids, f"{training_set.path} is another set, or was prepared differently")
        leaks = [leak for leak in find_leaks(training_set, prepared) if leak.id_a in train and leak.id_b in test]
        return Leakage(tuple(leaks), training_set.path, None)


def _by_id_alone(train: Collection[str], test_ids: Sequence[str], reason: str) -> Leakage:
    same = tuple(Leak(name, name, SAME_ID, None) for name in test_ids if name in train)
    return Leakage(same, None, f"only ids were compared, as the training set is not available: {reason}")


def holds_recorded_ids(prepared: PreparedSet, recorded: Mapping) -> bool:
    """Whether a set has the name and all ids of the set that a checkpoint was trained on.

    Such a set may have been prepared differently.
    """
    every_id = {image_id for part in PARTS for image_id in recorded[f"{part}_ids"]}
    return prepared.name == recorded["name"] and every_id <= set(prepared.ids)
