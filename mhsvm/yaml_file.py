"""Read YAML files of settings as text, lists and dictionaries, in bounded time and memory.

Scalars stay text, because YAML's guesses differ from the types of the settings: YAML 1.1 reads 1e-3 as text, `on` as
true, 010 as 8 and 1:30 as 90. Only an empty value, `null` and `~` are None. A few lines of nested aliases can stand for
billions of values, so that all values are counted as they would be written without aliases.
"""

from pathlib import Path
from typing import Any

import yaml

from mhsvm.text_file import read_text

MAX_BYTES = 200_000
MAX_VALUES = 10_000
MAX_DEPTH = 20

_NULL = ("", "~", "null", "Null", "NULL")


def read_yaml(path: Path, *, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """Read the settings of a YAML file; an empty file has none.

    Args:
        path: The file.
        max_values: Most values that it may hold, each alias counted with all values that it stands for.
    Returns:
        Nested dictionaries with str, None and lists in them.
    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: It is no YAML of settings, repeats a key, or is too large.
    """
    if path.is_dir():
        raise FileNotFoundError(f"config {path} is a folder: name a file, such as {path / 'config.yaml'}")
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist: check the path")
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path} is no config: it has {path.stat().st_size:,} bytes, more than {MAX_BYTES:,}")
    try:
        node = yaml.compose(read_text(path), Loader=_Loader)
        values = None if node is None else _Expansion(max_values).value(node)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold settings as `group: {{key: value}}`, not a {type(values).__name__}")
    return values


class _Refused(yaml.MarkedYAMLError):
    """A document that YAML allows and settings do not."""

    def __init__(self, node_or_mark: yaml.Node | yaml.Mark, problem: str) -> None:
        mark = node_or_mark.start_mark if isinstance(node_or_mark, yaml.Node) else node_or_mark
        super().__init__(problem=problem, problem_mark=mark)


class _Loader(yaml.BaseLoader):
    """Composes nodes of bounded depth."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        if self._depth > MAX_DEPTH:
            raise _Refused(self.peek_event().start_mark, f"settings are nested at most {MAX_DEPTH} deep")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node


class _Expansion:
    """Turns nodes into values, with a copy for each alias."""

    def __init__(self, max_values: int) -> None:
        self._max = self._left = max_values

    def value(self, node: yaml.Node, depth: int = 0) -> Any:
        self._left -= 1
        if self._left < 0:
            raise _Refused(node, f"with its aliases it stands for more than {self._max:,} values")
        if depth > MAX_DEPTH:
            raise _Refused(node, f"settings are nested at most {MAX_DEPTH} deep, and no alias stands for itself")
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, depth + 1) for item in node.value]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, depth)
        return None if node.style is None and node.value in _NULL else node.value

    def _mapping(self, node: yaml.MappingNode, depth: int) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise _Refused(key_node, "a key is the name of a setting or group")
            key, value = key_node.value, self.value(value_node, depth + 1)
            if key == "<<" and key_node.style is None:
                merged |= self._merged(value_node, value)
            elif key.lower() in map(str.lower, own):
                raise _Refused(key_node, f"the key {key!r} is there twice: remove one of them")
            else:
                own[key] = value
        return merged | own

    def _merged(self, node: yaml.Node, value: Any) -> dict[str, Any]:
        """The settings of a merge key `<<`; of several groups, the first that has a key counts."""
        groups = value if isinstance(value, list) else [value]
        if not all(isinstance(group, dict) for group in groups):
            raise _Refused(node, "<< takes a group, or a list of groups")
        merged: dict[str, Any] = {}
        for group in reversed(groups):
            merged |= group
        return merged
