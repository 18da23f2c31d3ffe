"""Sets, splits and augmentation by a config."""

from yacs.config import CfgNode

from mhsvm.assemble.networks import choose_backend
from mhsvm.data.augment import Augment
from mhsvm.data.split_file import Split
from mhsvm.data.splits import make_split
from mhsvm.leakage import duplicate_groups
from mhsvm.prepare.class_levels import check_classes
from mhsvm.prepare.pipeline import LIMIT
from mhsvm.prepare.sets import DEFAULT_SIZE, find_set, open_set, require_size
from mhsvm.store import SYNTHETIC, PreparedSet


def build_set(config: CfgNode) -> PreparedSet:
    """Open the set of `config.data`.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It cannot be used, or has another number of classes than the model.
    """
    size = config.data.size or DEFAULT_SIZE
    prepared = open_set(find_set(config.data.set), size=size, num_classes=config.model.num_classes)
    if prepared.num_classes != config.model.num_classes:
        raise ValueError(
            f"{prepared.path} has masks of {prepared.num_classes} classes and model.num_classes is "
            f"{config.model.num_classes}: set model.num_classes {prepared.num_classes}"
        )
    check_classes(prepared)
    return prepared


def with_size(config: CfgNode, prepared: PreparedSet) -> CfgNode:
    """The config of a new run with the size of its set in `data.size`, if that is a square; 0 is the set's own size.

    Raises:
        ValueError: `data.size` names another size than the set has.
    """
    require_size(prepared, config.data.size or None, setting="data.size")
    h, w = prepared.size
    config = config.clone()
    config.defrost()
    config.data.size = h if h == w else 0
    config.freeze()
    return config


def build_split(name: str, prepared: PreparedSet) -> Split:
    """The split `name` of a set; for k-fold its near-duplicates count as groups."""
    groups = duplicate_groups(prepared) if name.startswith("kfold") else prepared.groups
    return make_split(name, ids=prepared.ids, subsets=prepared.subsets, groups=groups, dataset=prepared.name)


def build_augment(config: CfgNode, *, training: bool, backend: str | None = None) -> Augment:
    """Build the normalization, for training with the random augmentation of `config.data`."""
    return Augment(
        normalization=config.data.normalization,
        augmentation=config.data.augmentation if training else "none",
        num_classes=config.model.num_classes,
        soft_targets=config.data.soft_targets,
        backend=choose_backend(config, backend),
    )


def describe_set(prepared: PreparedSet) -> str:
    """The set for the first lines of a log: name, file, size, number of images and classes."""
    h, w = prepared.size
    classes = "lesion masks" if prepared.num_classes == 1 else f"{prepared.num_classes} classes"
    kind = "synthetic images" if prepared.is_synthetic else "images"
    count = prepared.attributes.get(LIMIT, len(prepared))
    return f"{prepared.name} ({prepared.path}): {count} {kind} of {h} x {w} (height x width), {classes}"


def describe_data(prepared: PreparedSet, split: Split) -> dict:
    """The record of the data in a checkpoint."""
    return {
        "name": prepared.name,
        **({SYNTHETIC: True} if prepared.is_synthetic else {}),
        "checksum": prepared.checksum,
        "size": list(prepared.size),
        "split": split.name,
        "split_hash": split.hash,
        **{f"{part}_ids": list(split.ids(part)) for part in ("train", "val", "test")},
    }
