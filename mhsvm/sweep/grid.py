"""The runs of a sweep: settings x folds x seeds, each a config with a name."""

import itertools
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from mhsvm.assemble import read_config
from mhsvm.config import get_value

# Keys that a sweep sets itself, with the way to choose their values.
_OWN_KEYS = {
    "run.seed": "name the seeds with `seeds` 0-4",
    "run.name": "runs are named after the settings that vary",
    "run.folder": "name the sweep's folder with `folder`",
    "run.device": "the sweep assigns the GPUs",
}
_KFOLD = re.compile(r"kfold-(\d+)-(\d+)(?:-\d+)?")


@dataclass(frozen=True)
class Variant:
    """A combination of the settings that vary, except seed and fold.

    Attributes:
        name: Short name for messages and folders, such as "lr=0.001"; "" if no setting varies.
        settings: Alternating keys and values: first those of all runs, then those that vary.
    """

    name: str
    settings: tuple[str, ...]


@dataclass(frozen=True)
class GridRun:
    """One training of a sweep.

    Attributes:
        name: Name of its folder in the folder of the sweep.
        variant: Name of its combination of settings.
        seed: Its `run.seed`.
        fold: Fold for the test, or None.
        settings: Alternating keys and values for the command line, after the config file.
        config: The resulting config.
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
    """List the runs of a sweep; folds and seeds of one combination of settings are adjacent.

    Args:
        config_path: YAML file with the settings of all runs.
        folder: Folder of the sweep; each run has a subfolder.
        settings: Alternating keys and values for all runs.
        choices: "KEY=V1,V2" for each setting that varies; a value that is a list is in brackets.
        seeds: Values of `run.seed`; None takes the seed of the config.
        folds: k for all folds of `data.split` "kfold-<k>-<seed>"; None takes the split of the config.
    Returns:
        At least one run; names are unique.
    Raises:
        ValueError: A key is unknown, a value does not fit its key, values or names are repeated, or the split is not
            k-fold.
        FileNotFoundError: The config does not exist.
    """
    if seeds and "run.seed" in map(str.lower, settings[::2]):
        raise ValueError("run.seed and `seeds` are both given: name all seeds with `seeds`")
    runs = []
    for variant in _make_variants(choices, settings):
        config = read_config(config_path, variant.settings)
        for (fold, split), seed in itertools.product(_folds(config.data.split, folds), seeds or [config.run.seed]):
            parts = [variant.name, "" if fold is None else f"fold{fold}", f"seed{seed}"]
            name = "_".join(part for part in parts if part)
            own = ["run.folder", str(folder), "run.name", name, "run.seed", str(seed)]
            if fold is not None:
                own += ["data.split", split]
            whole = (*variant.settings, *own)
            runs.append(GridRun(name, variant.name, seed, fold, whole, read_config(config_path, whole)))
    repeated = [name for name, times in Counter(run.name.lower() for run in runs).items() if times > 1]
    if repeated:
        raise ValueError(f"two runs of the sweep would be called {repeated[0]}: give each value and each seed once")
    return runs


def parse_seeds(text: str) -> list[int]:
    """Parse seeds such as "0-4", "1,5,9" or "0-2,7".

    Raises:
        ValueError: The text has another form, or a range is empty.
    """
    seeds: list[int] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
        if not match or int(match[2] or match[1]) < int(match[1]):
            raise ValueError(f"seeds are written 0-4 or 1,5,9, not {text!r}")
        seeds += range(int(match[1]), int(match[2] or match[1]) + 1)
    return seeds


def _make_variants(choices: Sequence[str], settings: Sequence[str]) -> list[Variant]:
    """All combinations of the values of `choices`, after the settings of all runs."""
    parsed = [_parse_choice(choice) for choice in choices]
    keys = [key for key, _ in parsed]
    for key in keys:
        if key.lower() in _OWN_KEYS:
            raise ValueError(f"`choices` cannot vary {key}: {_OWN_KEYS[key.lower()]}")
    lower = [key.lower() for key in keys]
    twice = [key for key in keys if lower.count(key.lower()) > 1 or key.lower() in map(str.lower, settings[::2])]
    if twice:
        raise ValueError(f"{twice[0]} is set more than once: give all its values in one `choices` {twice[0]}=V1,V2")
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
        raise ValueError(f"`choices` takes KEY=V1,V2, such as optimizer.AdamW.lr=1e-3,5e-4, not {text!r}")
    key = key.strip()
    typed = [get_value(read_config(None, [key, value]), key) for value in values]
    if isinstance(typed[0], tuple) and not all(value[0] in "([" for value in values):
        raise ValueError(
            f"{key} takes lists: write each in brackets, such as `choices` '{key}=[{','.join(map(str, typed[0]))}],[…]'"
        )
    if len(set(typed)) < len(typed):
        raise ValueError(f"a value of {key} is repeated in {listed!r}: give each once")
    return key, values


def _in_a_name(value: str) -> str:
    """Format a value for the name of a folder: "[C, X]" becomes "C+X"."""
    return re.sub(r"[^\w.+-]+", "-", re.sub(r"\s*,\s*", "+", value.strip("()[] "))).strip("-") or "none"


def _folds(split: str, folds: int | None) -> list[tuple[int | None, str]]:
    """Number and split of each fold; (None, split) without folds."""
    if folds is None:
        return [(None, split)]
    match = _KFOLD.fullmatch(split)
    if not match or int(match[1]) != folds:
        raise ValueError(
            f"`folds` {folds} goes with a split of {folds} folds, and data.split is {split!r}: "
            f"set data.split kfold-{folds}-42, where 42 is the seed of the folds"
        )
    return [(fold, f"kfold-{folds}-{match[2]}-{fold}") for fold in range(folds)]
