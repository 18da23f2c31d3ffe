"""Check a whole sweep before its first run starts."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from yacs.config import CfgNode

from mhsvm.assemble import build_job, build_set
from mhsvm.assemble.data import with_size
from mhsvm.data.split_file import Split
from mhsvm.data.splits import make_split
from mhsvm.errors import Errors
from mhsvm.prepare.class_levels import check_classes
from mhsvm.prepare.sets import find_set, open_set
from mhsvm.store import PreparedSet
from mhsvm.sweep.grid import GridRun


@dataclass(frozen=True)
class SetToTest:
    """A set that every run is tested on.

    Attributes:
        name: Name of the set and of its test's folder.
        argument: Set argument of `mhsvm test`.
        checksum: Checksum of the set.
    """

    name: str
    argument: str
    checksum: str


@dataclass(frozen=True)
class Checked:
    """Result of the check.

    Attributes:
        test_sets: Sets to test by name of the run: its own set (the test part of its split), then further ones.
        num_parameters: Parameters of the largest network.
    """

    test_sets: dict[str, tuple[SetToTest, ...]]
    num_parameters: int


def check_grid(runs: Sequence[GridRun], *, further_sets: Sequence[str]) -> Checked:
    """Make the split of each run, and build each combination of settings once on the CPU with three images.

    The search for near-duplicates is left out: it moves images between folds, and cannot fail.

    Args:
        runs: The runs of the sweep.
        further_sets: Names or paths of additional test sets for every run.
    Raises:
        ValueError: Settings, split, set and network do not fit, or a split lacks a part; a run of each such combination
            of settings is named.
        FileNotFoundError: A set does not exist.
    """
    test_sets, largest, seen = {}, 0, {}
    errors, failed = Errors(), set()
    for run in runs:
        if run.variant in failed:
            continue
        try:
            with build_set(run.config) as prepared:
                with_size(run.config, prepared)
                own = _as_test_set(prepared, run.config.data.set)
                split = _quick_split(run.config.data.split, prepared)
                if run.variant not in seen:
                    largest = max(largest, _build_once(run.config, prepared, split))
                    seen[run.variant] = [_open_further(name, run.config, prepared.size) for name in further_sets]
            test_sets[run.name] = _with_unique_names([own, *seen[run.variant]])
        except (ValueError, FileNotFoundError) as error:
            failed.add(run.variant)
            kind = FileNotFoundError if isinstance(error, FileNotFoundError) else ValueError
            errors.add(kind(f"{run.name}: {error}"))
    errors.raise_if_any("combinations of settings cannot be trained")
    return Checked(test_sets, largest)


def _quick_split(name: str, prepared: PreparedSet) -> Split:
    split = make_split(name, ids=prepared.ids, subsets=prepared.subsets, groups=prepared.groups, dataset=prepared.name)
    for part in ("train", "val", "test"):
        if not split.ids(part):
            raise ValueError(f"split {name!r} of {prepared.path} has no {part} part, which a sweep needs")
    return split


def _build_once(config: CfgNode, prepared: PreparedSet, split: Split) -> int:
    """Build a training job with one image per part, and return the network's number of parameters."""
    small = Split(split.name, {split.ids(part)[0]: part for part in ("test", "val", "train")})
    on_cpu = config.clone()
    on_cpu.defrost()
    on_cpu.run.device = "cpu"
    if config.run.device != "cpu" and config.train.step == "graph" and torch.cuda.is_available():
        # this check captures no graphs
        on_cpu.train.step = "auto"
    job = build_job(on_cpu, prepared, small)
    return sum(parameter.numel() for parameter in job.model.parameters())


def _open_further(name: str, config: CfgNode, size: tuple[int, int]) -> SetToTest:
    # a test prepares a folder at the size of the checkpoint's own set
    with open_set(find_set(name), size=size, num_classes=config.model.num_classes) as prepared:
        if prepared.num_classes != config.model.num_classes:
            raise ValueError(
                f"the masks of {prepared.path} have num_classes {prepared.num_classes}, model.num_classes is "
                f"{config.model.num_classes}: leave this set out"
            )
        check_classes(prepared)
        return _as_test_set(prepared, name)


def _as_test_set(prepared: PreparedSet, argument: str) -> SetToTest:
    return SetToTest(prepared.name, str(argument), prepared.checksum)


def _with_unique_names(test_sets: Sequence[SetToTest]) -> tuple[SetToTest, ...]:
    names = [test_set.name for test_set in test_sets]
    if len(set(names)) < len(names):
        raise ValueError(
            f"two test sets have the same name: {', '.join(names)}; every run is tested on its own set, {names[0]}, "
            "anyway: name each other set once with `further_sets`"
        )
    return tuple(test_sets)
