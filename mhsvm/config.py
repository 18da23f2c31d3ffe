"""Read configs: the defaults, YAML files and settings, and the values of dotted keys.

Only `mhsvm.assemble` reads the values of a config, and this file imports nothing of a room.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

from mhsvm.bounds import MAY_BE_EMPTY, check_value
from mhsvm.defaults import DEFAULTS
from mhsvm.errors import Errors
from mhsvm.nearest import nearest
from mhsvm.setting_types import as_type_of
from mhsvm.yaml_file import MAX_DEPTH, read_yaml

_PLUGINS = "run.plugins"
_MISSING = object()

# Names of modules to import -> group -> name of an entry -> its arguments with their defaults.
Extend = Callable[[tuple[str, ...]], Mapping[str, Mapping[str, Mapping[str, object]]]]


def load_config(
    path: str | Path | None = None, overrides: Sequence[Any] = (), *, extend: Extend | None = None
) -> CfgNode:
    """Read a config: the defaults, then a YAML file, then settings, converted to the types of their keys.

    Args:
        path: YAML file with the settings that differ from the defaults; None takes the defaults.
        overrides: Dotted keys and values, KEY VALUE or KEY=VALUE, as on a command line.
        extend: Imports the modules of `run.plugins` and returns the arguments of entries that `DEFAULTS` lacks;
            see `mhsvm.assemble.read_config`.
    Returns:
        A frozen config.
    Raises:
        ValueError: A key is unknown (the nearest is named), a value has the wrong type or one that no training can
            use, or a key has no value; all of them are listed.
        FileNotFoundError: The file does not exist.
    """
    words = pair_up(overrides)
    pairs = list(zip(words[::2], words[1::2], strict=True))
    leaves = [] if path is None else _leaves_once(read_yaml(Path(path)), path)
    config = _defaults([*leaves, *pairs], extend)
    errors = Errors()
    for key, value in leaves:
        if value is None and is_group(config, key):
            # all of its settings are commented out
            continue
        with errors.collected(), _named(path):
            _set_checked(config, key, value)
    for key, value in pairs:
        with errors.collected():
            _set_checked(config, key, value)
    errors.raise_if_any("settings cannot be used")
    config.freeze()
    return config


def config_from_dict(values: Mapping, *, extend: Extend | None = None) -> CfgNode:
    """Rebuild a config from the values in a checkpoint; settings that it lacks keep their defaults.

    Args:
        values: From `to_dict`.
        extend: See `load_config`.
    Raises:
        ValueError: A key is unknown, or a value has the wrong type.
    """
    leaves = list(dotted(values))
    config = _defaults(leaves, extend)
    with _named("the recorded config"):
        for key, value in leaves:
            set_value(config, key, value)
    config.freeze()
    return config


def dotted(values: Mapping, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of nested settings.

    Raises:
        ValueError: They are nested too deep.
    """
    if prefix.count(".") > MAX_DEPTH:
        raise ValueError(f"settings are nested at most {MAX_DEPTH} deep")
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def pair_up(words: Sequence[Any]) -> list[Any]:
    """Alternating keys and values of settings that are written KEY VALUE or KEY=VALUE, in any mix.

    Raises:
        ValueError: The last key has no value.
    """
    paired: list[Any] = []
    rest = iter(words)
    for word in rest:
        key, equals, joined = str(word).partition("=")
        if key and equals:
            paired += [key, joined]
            continue
        value = next(rest, _MISSING)
        if value is _MISSING:
            raise ValueError(
                f"settings are pairs KEY VALUE or KEY=VALUE, but {word!r} at the end has no value: add one"
            )
        paired += [word, value]
    return paired


def _defaults(settings: Sequence[tuple[str, object]], extend: Extend | None) -> CfgNode:
    """`DEFAULTS`, and a node for each entry that only the plugins named in the settings know."""
    config = DEFAULTS.clone()
    named = [value for key, value in settings if key.lower() == _PLUGINS]
    modules = as_type_of((), named[-1], _PLUGINS) if named else ()
    for group, entries in (extend(modules) if extend else {}).items():
        for name, arguments in entries.items():
            if name not in config[group]:
                config[group][name] = CfgNode(dict(arguments))
    return config


def read_value(path: str | Path, key: str) -> Any:
    """Read a single key of a config file, or its default; the other settings are not checked.

    Raises:
        ValueError: The file is no YAML, the key is unknown, or the value does not fit its type.
        FileNotFoundError: The file does not exist.
    """
    config = DEFAULTS.clone()
    for name, value in _leaves_once(read_yaml(Path(path)), path):
        if name.lower() == key:
            set_value(config, name, value)
    return get_value(config, key)


def to_dict(config: CfgNode) -> dict:
    """Convert a config to plain dictionaries, lists, strings and numbers."""
    return {
        key: to_dict(value) if isinstance(value, CfgNode) else (list(value) if isinstance(value, tuple) else value)
        for key, value in config.items()
    }


def get_value(config: CfgNode, key: str) -> Any:
    """Look up the value of a dotted key.

    Raises:
        ValueError: The key is unknown or names a group.
    """
    *groups, name = _find(config, key)
    for group in groups:
        config = config[group]
    return config[name]


def set_value(config: CfgNode, key: str, value: Any) -> None:
    """Set a dotted key of a config that is not frozen, converting the value to the type of the key.

    Raises:
        ValueError: The key is unknown or names a group, or the value does not fit the type of the key.
    """
    *groups, name = _find(config, key)
    for group in groups:
        config = config[group]
    config[name] = as_type_of(config[name], value, ".".join([*groups, name]))


def find_keys(name: str) -> list[str]:
    """Keys of `DEFAULTS` with this name: the whole key, or its last part."""
    return [key for key, _ in dotted(DEFAULTS) if name.lower() in (key.lower(), key.lower().rpartition(".")[2])]


def is_group(config: CfgNode, key: str) -> bool:
    """Whether a dotted key, in upper or lower case, names a group of settings."""
    node: Any = config
    for part in key.lower().split("."):
        names = {name.lower(): name for name in node} if isinstance(node, CfgNode) else {}
        node = node[names[part]] if part in names else None
    return isinstance(node, CfgNode)


def _set_checked(config: CfgNode, key: str, value: Any) -> None:
    """Set a key as `set_value` does, to a value that a training can use."""
    path = ".".join(_find(config, key))
    default = get_value(config, path)
    typed = as_type_of(default, value, path)
    is_empty = typed == () or (isinstance(typed, str) and not typed.strip())
    if is_empty and default not in ("", ()) and path not in MAY_BE_EMPTY and find_keys(path):
        raise ValueError(f"{path} is not empty; leave it out for its default")
    check_value(path, typed)
    set_value(config, path, typed)


@contextmanager
def _named(source: object) -> Iterator[None]:
    """Put the source of the settings before a message."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{source}: {error}") from error


def _leaves_once(values: Mapping, path: str | Path) -> list[tuple[str, Any]]:
    """The settings of a file by dotted key; none is there twice."""
    leaves = list(dotted(values))
    repeated = [key for key, times in Counter(key.lower() for key, _ in leaves).items() if times > 1]
    if repeated:
        raise ValueError(f"{path}: {repeated[0]} is there twice: remove one of them")
    return leaves


def _find(config: CfgNode, key: str) -> list[str]:
    """Split a dotted key into parts, spelled as in the defaults; the case of the key does not matter."""
    parts: list[str] = []
    node: Any = config
    for part in key.split("."):
        names = {name.lower(): name for name in node} if isinstance(node, CfgNode) else {}
        if part.lower() not in names:
            raise ValueError(f"unknown setting {key!r}; {_nearest(config, key)}")
        parts.append(names[part.lower()])
        node = node[parts[-1]]
    if isinstance(node, CfgNode):
        raise ValueError(f"{key!r} is a group of settings, not one: {', '.join(f'{key}.{name}' for name in node)}")
    return parts


def _nearest(config: CfgNode, key: str) -> str:
    known = [name for name, _ in dotted(config)]
    last = key.lower().rpartition(".")[2]
    candidates = [name for name in known if name.lower().rpartition(".")[2] == last]
    # if several groups have such a key, prefer the group in use
    in_use = [
        name for name in candidates if any(f".{group}.".lower() in name.lower() for group in _names_in_use(config))
    ]
    return f"the nearest is {nearest(key, in_use or candidates or known, cutoff=0.0)!r}"


def _names_in_use(config: CfgNode) -> list[str]:
    return [node["name"] for node in config.values() if node.get("name")]
