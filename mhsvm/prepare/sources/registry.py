"""Naming rules of data sets, and the registry of sources."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from mhsvm.prepare.official import OfficialFolder, official_origin
from mhsvm.registry import Registry


@dataclass(frozen=True)
class GroupTable:
    """A CSV file among those of a set that gives the group of ids, such as their patient or lesion.

    Attributes:
        file_name: Name of the file, in whichever folder or archive, or its names.
        id_column, group_column: Names of its columns; an empty group is none. The first of several columns that has a
            group counts.
        lists_others: Whether it has rows of images that are not in the set.
        is_expected: Whether the set comes with it, so that a note names it if it is missing.
    """

    file_name: str | tuple[str, ...] = "groups.csv"
    id_column: str = "id"
    group_column: str | tuple[str, ...] = "group"
    lists_others: bool = False
    is_expected: bool = False

    @property
    def file_names(self) -> tuple[str, ...]:
        """Names of the file."""
        return (self.file_name,) if isinstance(self.file_name, str) else self.file_name

    @property
    def group_columns(self) -> tuple[str, ...]:
        """Columns with groups, the first of which counts."""
        return (self.group_column,) if isinstance(self.group_column, str) else self.group_column


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
        group_table: The file with the groups of ids, if it is there; it overrides the pattern, and groups.csv of a user
            overrides both.
        rater_pattern: For sets with several masks an image: pattern of the whole name, without extension, of a mask
            whose rater is known, with the groups `id` and `rater`, and `tool` and `skill` where names hold them. Other
            masks, and those for which `rater` matches nothing, are the primary ones of their images.
        path_pattern: Pattern that the path of a file matches anywhere; other files are left out. For sets whose ids may
            be those of any set, such as numbers.
        unused_pattern, unused_kind: Pattern of the whole name, without extension, of masks that are left out, and their
            kind as a plural noun.
        has_subsets: Whether folders such as `train` are subsets. Otherwise no image has one by its folder.
        subset_files: Names of CSV files that list the ids of a subset, by the subset.
        also_from: Official folders of other tasks whose images are those of this set, such as "ISIC 2018 task3".
    """

    id_pattern: re.Pattern[str]
    looked_for: str
    official: str = ""
    needs_folders: bool = False
    group_pattern: re.Pattern[str] | None = None
    group_table: GroupTable = GroupTable()
    rater_pattern: re.Pattern[str] | None = None
    path_pattern: re.Pattern[str] | None = None
    unused_pattern: re.Pattern[str] | None = None
    unused_kind: str = ""
    has_subsets: bool = True
    subset_files: Mapping[str, str] = field(default_factory=dict)
    also_from: tuple[str, ...] = ()

    def is_id(self, name: str, path: str) -> bool:
        """Whether the name of a file, without extension and ending, is an id of this set."""
        if self.path_pattern is not None and not self.path_pattern.search(path):
            return False
        return self.id_pattern.fullmatch(name) is not None

    def leaves_out(self, path: str) -> OfficialFolder | None:
        """The official folder of another set or task that contains a file; None if the file may belong to this set."""
        origin = official_origin(path)
        if origin is None or str(origin) in self.also_from:
            return None
        if origin.segments and self.official in ("", origin.set):
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
