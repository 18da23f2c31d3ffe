"""Which runs a sweep has: settings x folds x seeds, each a config with a name."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from mhsvm.assemble import read_config
from mhsvm.config import get_value

# What --set cannot vary.
_OWN_KEYS = {
    "run.seed": "name the seeds with --seeds 0-4",
    "run.name": "runs are named after what varies",
    "run.folder": "name the sweep's folder with --out",
    "run.device": "the sweep goes over the GPUs by itself",
}
_KFOLD = re.compile(r"kfold-(\d+)-(\d+)(?:-\d+)?")


@dataclass(frozen=True)
class Variant:
    """One combination of the settings that vary, apart from seed and fold.

    Attributes:
        name: Short, for people and folders, such as "lr=0.001"; "" where no setting varies.
        settings: Alternating keys and values: what every run of the sweep sets, then what varies.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class GridRun:
    """One training of a sweep.

    Attributes:
        name: Of its folder inside the sweep's.
        variant: The name of its settings.
        seed: Its `run.seed`.
        fold: Which fold tests, or None.
        settings: Alternating keys and values for the command line, behind the config file.
        config: What they come to.
    """

    name: str
    variant: str
    seed: int
    fold: int | None
    settings: tuple[str, ...]
    config: CfgNode


def make_grid(
    config_path: str | Path,
    *,
    folder: Path,
    settings: Sequence[str] = (),
    choices: Sequence[str] = (),
    seeds: Sequence[int] | None = None,
    folds: int | None = None,
) -> list[GridRun]:
    """Lay out the runs of a sweep: all folds and seeds of a combination of settings side by side.

    Args:
        config_path: YAML file with what all runs share.
        folder: The sweep's folder; each run gets one inside it.
        settings: Alternating keys and values that all runs share, too.
        choices: "KEY=V1,V2" for each setting that varies; a value that is itself a list stands in brackets.
        seeds: Values of `run.seed`; None takes the config's.
        folds: k: every fold of `data.split` "kfold-<k>-<seed>"; None takes the split as it is.
    Returns:
        At least one run, all of different names.
    Raises:
        ValueError: An unknown key, a value that does not fit its key, values or names that come twice, or folds of a
            split that is not k-fold.
        FileNotFoundError: There is no such config.
    """
    if seeds and "run.seed" in map(str.lower, settings[::2]):
        raise ValueError("run.seed is given beside --seeds: name all seeds with --seeds")
    runs = []
    for variant in _make_variants(choices, settings):
        config = read_config(config_path, variant.settings)
        for fold, seed in itertools.product(_fold_numbers(folds), seeds or [config.run.seed]):
            parts = [variant.name, "" if fold is None else f"fold{fold}", f"seed{seed}"]
            name = "_".join(part for part in parts if part)
            own = ["run.folder", str(folder), "run.name", name, "run.seed", str(seed)]
            if fold is not None:
                own += ["data.split", _fold_of(config.data.split, folds, fold)]
            whole = (*variant.settings, *own)
            runs.append(GridRun(name, variant.name, seed, fold, whole, read_config(config_path, whole)))
    repeated = [name for name, times in Counter(run.name.lower() for run in runs).items() if times > 1]
    if repeated:
        raise ValueError(f"two runs of the sweep would be called {repeated[0]}: give each value and each seed once")
    return runs


def parse_seeds(text: str) -> list[int]:
    """Seeds from "0-4", "1,5,9" or both mixed.

    Raises:
        ValueError: It is none of these, or a range is empty.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"seeds are written 0-4 or 1,5,9, not {text!r}")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds


def _make_variants(choices: Sequence[str], settings: Sequence[str]) -> list[Variant]:
    """Every combination of the values of `choices`, behind the settings that all share."""
    parsed = [_parse_choice(choice) for choice in choices]
    keys = [key for key, _ in parsed]
    for key in keys:
        if key.lower() in _OWN_KEYS:
            raise ValueError(f"--set cannot vary {key}: {_OWN_KEYS[key.lower()]}")
    lower = [key.lower() for key in keys]
    twice = [key for key in keys if lower.count(key.lower()) > 1 or key.lower() in map(str.lower, settings[::2])]
    if twice:
        raise ValueError(f"{twice[0]} is set more than once: give all its values in one --set {twice[0]}=V1,V2")
    endings = Counter(key.rpartition(".")[2] for key in lower)
    shown = [key.rpartition(".")[2] if endings[key.lower().rpartition(".")[2]] == 1 else key for key in keys]
    variants = []
    for values in itertools.product(*(values for _, values in parsed)):
        name = "_".join(f"{key}={_in_a_name(value)}" for key, value in zip(shown, values, strict=True))
        pairs = itertools.chain.from_iterable(zip(keys, values, strict=True))
        variants.append(Variant(name, (*settings, *pairs)))
    return variants


def _parse_choice(text: str) -> tuple[str, list[str]]:
    key, equals, listed = text.partition("=")
    # a comma between brackets belongs to a value
    values = [value.strip() for value in re.split(r",(?![^(\[]*[)\]])", listed)]
    if not equals or not key.strip() or not all(values):
        raise ValueError(f"--set takes KEY=V1,V2, such as optimizer.AdamW.lr=1e-3,5e-4, not {text!r}")
    key = key.strip()
    typed = [get_value(read_config(None, [key, value]), key) for value in values]
    if isinstance(typed[0], tuple) and not all(value[0] in "([" for value in values):
        raise ValueError(
            f"{key} takes lists: write each in brackets, such as --set '{key}=[{','.join(map(str, typed[0]))}],[…]'"
        )
    if len(set(typed)) < len(typed):
        raise ValueError(f"a value of {key} comes twice in {listed!r}")
    return key, values


def _in_a_name(value: str) -> str:
    """A value as a part of a folder's name: "[C, X]" becomes "C+X"."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"\s*,\s*", "+", value.strip("()[] "))).strip("-") or "none"


def _fold_numbers(folds: int | None) -> list[int | None]:
    return [None] if folds is None else list(range(folds))


def _fold_of(split: str, folds: int, fold: int) -> str:
    match = _KFOLD.fullmatch(split)
    if not match or int(match[1]) != folds:
        raise ValueError(
            f"--folds {folds} goes with a split of {folds} folds, and data.split is {split!r}: "
            f"set data.split kfold-{folds}-42, where 42 is the seed of the folds"
        )
    return f"kfold-{folds}-{match[2]}-{fold}"
