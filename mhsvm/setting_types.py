"""Convert the value of a setting, text or a Python value, to the type of its default."""

import math
import re
from collections.abc import Sequence
from typing import Any

_TRUE, _FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")
_NONE = ("none", "null", "~")


def as_type_of(default: Any, value: Any, key: str) -> Any:
    """Convert the value of a dotted key to the type of its default.

    Args:
        default: A str, bool, int, float or tuple; None takes a float or none.
        value: Text, or a value of Python; None is empty where the default is.
        key: For messages.
    Raises:
        ValueError: The value does not fit.
    """
    if value is None and default in ("", ()):
        return default
    try:
        if isinstance(default, tuple):
            return tuple(_scalar(item, default[0] if default else "") for item in _items(value))
        return _scalar(value, default)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{key} takes {_kind(default)}, not {_shown(value)}") from error


def _items(value: object) -> list:
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        return [item.strip().strip("'\"") for item in text.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value]


def _scalar(value: Any, default: Any) -> Any:
    if default is None:
        return None if value is None or str(value).lower() in _NONE else _number(value, float)
    if value is None or not isinstance(value, (str, bool, int, float)):
        raise ValueError
    if isinstance(default, bool):
        text = str(value).lower()
        if text not in (*_TRUE, *_FALSE):
            raise ValueError
        return text in _TRUE
    if isinstance(default, str):
        if "\0" in str(value):
            raise ValueError
        return str(value)
    return _number(value, type(default))


def _number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or (isinstance(value, float) and kind is int):
        raise ValueError
    # 8 or 10: YAML 1.1 and 1.2 disagree
    if isinstance(value, str) and re.fullmatch(r"\s*[-+]?0[0-9_]+\s*", value):
        raise ValueError
    number = kind(value)
    if not math.isfinite(number):
        raise ValueError
    return number


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:97]}…"


def _kind(default: object) -> str:
    if default is None:
        return "float or none"
    if isinstance(default, Sequence) and not isinstance(default, str):
        if not default:
            return "a list of str"
        return f"a list of {type(default[0]).__name__} (such as {','.join(map(str, default))})"
    return f"{type(default).__name__} (such as {default!r})"
