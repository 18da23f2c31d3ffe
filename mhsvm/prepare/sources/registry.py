"""What tells the data sets apart, as data, and the table of those that are known."""

import re
from dataclasses import dataclass

from mhsvm.registry import Registry


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


SOURCES: Registry[Source] = Registry("source")


def register_source(name: str, source: Source) -> None:
    """Make a source known under a name.

    Raises:
        ValueError: The name is taken.
    """
    SOURCES.add(name, source)


def list_sources() -> tuple[str, ...]:
    """Names of the known sources."""
    return tuple(sorted(SOURCES))
