"""Configs with everything that is registered, by the package or by plugins."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from mhsvm.config import config_from_dict, load_config
from mhsvm.defaults import DEFAULTS
from mhsvm.files import StrPath
from mhsvm.layers.mixers import MIXERS
from mhsvm.losses import LOSSES
from mhsvm.models.registry import MODELS, Network
from mhsvm.plugins import check_plugins, import_plugins
from mhsvm.registry import Registry
from mhsvm.training.optimizers import OPTIMIZERS
from mhsvm.training.schedules import SCHEDULES

_Entries = dict[str, dict[str, dict[str, object]]]

# Group -> its registry, how many arguments the package gives, and those that are settings elsewhere.
_GROUPS: dict[str, tuple[Registry[Any], int, tuple[str, ...]]] = {
    "model": (MODELS, 0, ("num_classes", "in_channels", "backend")),
    "mixer": (MIXERS, 1, ("d_state", "d_conv", "expand", "backend")),
    "loss": (LOSSES, 0, ()),
    "optimizer": (OPTIMIZERS, 1, ()),
    "schedule": (SCHEDULES, 1, ()),
}


def read_config(path: StrPath | None = None, overrides: Sequence[str] = ()) -> CfgNode:
    """Read a config after importing its plugins; see `mhsvm.config.load_config`.

    Raises:
        ValueError: A plugin cannot be imported; or see `load_config`.
        FileNotFoundError: There is no such file.
    """
    return load_config(None if path is None else Path(path), overrides, extend=_import_and_extend)


def recorded_config(
    values: Mapping, path: StrPath, *, plugins: Sequence[str] = (), allowed_in: str = "`plugins`"
) -> CfgNode:
    """Read the config that a checkpoint recorded; of the plugins that it names, none is imported.

    Args:
        values: The recorded values.
        path: The checkpoint, for messages.
        plugins: Modules that the user names; they are imported first.
        allowed_in: The place where the user can name more, for messages.
    Raises:
        ValueError: A plugin of the user cannot be imported, one of the config is not imported yet, or it no longer
            registers an entry that the config names.
    """
    import_plugins(plugins)

    def extend(modules: tuple[str, ...]) -> _Entries:
        check_plugins(modules, allowed_in=allowed_in)
        return _registered()

    try:
        return config_from_dict(values, extend=extend)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def _import_and_extend(modules: tuple[str, ...]) -> _Entries:
    import_plugins(modules)
    return _registered()


def _registered() -> _Entries:
    """Groups, names and arguments of the registered entries that `DEFAULTS` lacks."""
    extended: _Entries = {}
    for group, (registry, num_given, elsewhere) in _GROUPS.items():
        for name, entry in registry.items():
            if name not in DEFAULTS[group]:
                constructor = entry.create if isinstance(entry, Network) else entry
                arguments = _arguments(constructor, f"{group} {name!r}", num_given=num_given, elsewhere=elsewhere)
                extended.setdefault(group, {}).update({name: arguments} if arguments else {})
    return extended


def _arguments(
    constructor: Callable[..., Any], owner: str, *, num_given: int, elsewhere: Sequence[str]
) -> dict[str, object]:
    """Arguments of a constructor with their defaults, without those that the config holds elsewhere."""
    parameters = list(inspect.signature(constructor).parameters.values())[num_given:]
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    named = {each.name: each.default for each in parameters if each.kind in kinds and each.name not in elsewhere}
    without = [name for name, default in named.items() if default is inspect.Parameter.empty]
    if without:
        raise ValueError(f"a config needs a default of each argument; {owner} has none of {', '.join(without)}")
    return {name: tuple(default) if isinstance(default, list) else default for name, default in named.items()}
