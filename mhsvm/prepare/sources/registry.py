"""Naming rules of data sets, and the registry of sources."""

import re
from dataclasses import dataclass

from mhsvm.prepare.official import OfficialFolder, official_origin
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
    """Naming rules for the files of a data set; everything else is the same for every source.

    Attributes:
        id_pattern: Pattern of a whole id: the name of a file without extension and, for a mask, without its ending.
        looked_for: Expected files, for the message if none is found.
        official: Name of the set in `mhsvm.prepare.official`, "" if it has none there. Files in official folders of
            another set, or of another task than segmentation, are left out: they share ids with this one.
        needs_folders: Whether only files below a folder `images` or `masks` count. Otherwise names are enough.
        group_pattern: Pattern that may match anywhere in an id; its first bracket is the group of the id.
        group_table: The file with the groups of ids, if it is there; it overrides the pattern.
        rater_pattern: For sets with several masks an image: pattern of the whole name, without extension, of a mask
            whose rater is known, with the groups `id` and `rater`, and `tool` and `skill` where names hold them. Other
            masks are the primary ones of their images.
    """

    id_pattern: re.Pattern[str]
    looked_for: str
    official: str = ""
    needs_folders: bool = False
    group_pattern: re.Pattern[str] | None = None
    group_table: GroupTable = GroupTable()
    rater_pattern: re.Pattern[str] | None = None

    def leaves_out(self, path: str) -> OfficialFolder | None:
        """The official folder of another set or task that contains a file; None if the file may belong to this set."""
        origin = official_origin(path)
        if origin is None or (origin.segments and self.official in ("", origin.set)):
            return None
        return origin


SOURCES: Registry[Source] = Registry("source")


def register_source(name: str, source: Source) -> None:
    """Register a source.

    Raises:
        ValueError: The name is taken.
    """
    SOURCES.add(name, source)


def list_sources() -> tuple[str, ...]:
    """Names of all sources."""
    return tuple(sorted(SOURCES))
