"""What tells the data sets apart, as data, and the table of those that are known."""

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class Source:
    """How the files of a data set are named; all else is the same for every source.

    Attributes:
        id_pattern: Matches a whole id: a file's name without extension and, for a mask, without its ending.
        looked_for: What a user should have, for the message when nothing was found.
        ignored: Files whose path matches anywhere belong to something else.
        needs_folders: Only files below a folder `images` or `masks` count. Otherwise names are enough, wherever the
            files lie.
    """

    id_pattern: re.Pattern[str]
    looked_for: str
    ignored: re.Pattern[str] | None = None
    needs_folders: bool = False


_SOURCES: dict[str, Source] = {}


def register_source(name: str, source: Source) -> None:
    """Make a source known under a name.

    Raises:
        ValueError: The name is taken.
    """
    if name in _SOURCES:
        raise ValueError(f"every source has a name of its own; {name!r} is taken")
    _SOURCES[name] = source


def list_sources() -> tuple[str, ...]:
    """Names of the known sources."""
    return tuple(sorted(_SOURCES))


def find_source(name: str) -> Source:
    """The source of this name.

    Raises:
        ValueError: Unknown; the known ones are named.
    """
    if name not in _SOURCES:
        near = difflib.get_close_matches(name, _SOURCES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"there is no source {name!r}; known: {', '.join(list_sources())}{hint}")
    return _SOURCES[name]
