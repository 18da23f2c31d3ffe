"""What tells the data sets apart, as data, and the table of those that are known."""

import re
from dataclasses import dataclass

from mhsvm.registry import Registry


@dataclass(frozen=True)
class GroupTable:
    """A CSV file among those of a set that gives the group of ids, such as their patient or lesion.

    Attributes:
        file_name: Name of the file, in whichever folder or archive.
        id_column, group_column: Names of its columns; an empty group is none.
        lists_others: Whether it has rows of images that are not in the set.
    """

    file_name: str = "groups.csv"
    id_column: str = "id"
    group_column: str = "group"
    lists_others: bool = False


@dataclass(frozen=True)
class Source:
    """How the files of a data set are named; all else is the same for every source.

    Attributes:
        id_pattern: Matches a whole id: a file's name without extension and, for a mask, without its ending.
        looked_for: What a user should have, for the message when nothing was found.
        ignored: Files whose path matches anywhere belong to something else.
        needs_folders: Only files below a folder `images` or `masks` count. Otherwise names are enough, wherever the
            files lie.
        group_pattern: Its first bracket is the group of an id in which it is found.
        group_table: The file with the groups of ids, if it is there; it overrides the pattern.
    """

    id_pattern: re.Pattern[str]
    looked_for: str
    ignored: re.Pattern[str] | None = None
    needs_folders: bool = False
    group_pattern: re.Pattern[str] | None = None
    group_table: GroupTable = GroupTable()


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
