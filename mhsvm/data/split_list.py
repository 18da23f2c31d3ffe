"""Lists of ids and parts as people write them: lines, or a table with column names.

# comments, empty lines
ISIC_0000001    train
images/ISIC_0000002.jpg, validation

image_id,diagnosis,split
ISIC_0000001,nevus,train
"""

import difflib
import re
import unicodedata
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from mhsvm.text_file import split_cells

# Parts by the words that people use, in lower case.
PART_WORDS = {
    **dict.fromkeys(("train", "training", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "validate", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "ts"), "test"),
    **dict.fromkeys(("val+test", "test+val"), "val+test"),
    **dict.fromkeys(("unused", "ignore", "ignored", "none"), "unused"),
}
_MAIN_PARTS = ("train", "val", "test", "val+test", "unused")
# Names of columns, in lower case and without spaces, "_" and "-".
_ID_COLUMN = re.compile(r"(isic)?id|ids|(image|img|case|sample)(id|name|file|path)?|name|file(name|path)?|path")
_PART_COLUMN = re.compile(r"split|part|partition|subset|set|phase|fold|mode")
_EXTENSION = re.compile(r"\.(jpe?g|jfif|png|bmp|gif|tiff?|webp|hei[cf]|avif|dcm|npy|nii|nii\.gz)", re.IGNORECASE)
_LINE = re.compile(r"\s*(\S.*?)\s*[\t,; ]\s*(\S+)\s*")
_COMMENT = re.compile(r"\s+#.*")
_LONGEST_LIST = 10


@dataclass
class SplitList:
    """Ids and parts of a list.

    Attributes:
        parts: Part by id, in the order of the list.
        problems: Descriptions of lines that cannot be read, and of repeated ids.
    """

    parts: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, place: str, name: str, word: str, ids: "Ids") -> None:
        """Add a row of the list, or its problem."""
        image_id = ids.find(name)
        part = PART_WORDS.get(word.strip().lower())
        if part is None:
            self.problems.append(f"{place}: a part is one of {', '.join(_MAIN_PARTS)}, got {word!r}")
        elif self.parts.setdefault(image_id, part) != part:
            self.problems.append(f"{place}: id {image_id!r} is in two parts, {self.parts[image_id]} and {part}")


class Ids:
    """Ids of a set, found by names of files.

    Args:
        ids: The ids; None takes every name for an id.
    """

    def __init__(self, ids: Collection[str] | None) -> None:
        self._ids = None if ids is None else dict.fromkeys(ids)

    def __contains__(self, image_id: str) -> bool:
        return self._ids is None or image_id in self._ids

    def find(self, name: str) -> str:
        """The id that a name means: itself, or without folders and ending; the name itself if that is no id."""
        return next((candidate for candidate in _candidates(name) if candidate in self), name)

    def describe(self, name: str) -> str:
        """A name that is no id, with the ids that it may mean."""
        last = _candidates(name)[-1]
        same = [image_id for image_id in self._ids or () if image_id.endswith(f"/{last}")]
        similar = same[:3] or difflib.get_close_matches(last, self._ids or (), n=1, cutoff=0.75)
        return f"{name} (similar: {', '.join(similar)})" if similar else name


def read_list(lines: Sequence[str], ids: Ids) -> SplitList:
    """Read the lines of a list; problems are collected, not raised."""
    found = SplitList()
    numbered = [(number, line) for number, line in enumerate(lines, start=1) if not _is_comment(line, ids)]
    columns = _columns(numbered[0][1]) if numbered else None
    if columns is None:
        for number, line in numbered:
            _add_line(found, f"line {number}", line, ids)
    else:
        delimiter, id_column, part_column = columns
        for number, line in numbered[1:]:
            cells = split_cells(line, delimiter=delimiter)
            if max(id_column, part_column) < len(cells):
                found.add(f"line {number}", cells[id_column].strip(), cells[part_column], ids)
            else:
                found.problems.append(f"line {number}: it has no cell in each column of the first line: {line!r}")
    return found


def shorten_problems(problems: Sequence[str]) -> list[str]:
    """The first problems and the number of the others."""
    rest = len(problems) - _LONGEST_LIST
    return [*problems[:_LONGEST_LIST], *([f"... and {rest} more lines"] if rest > 0 else [])]


def _is_comment(line: str, ids: Ids) -> bool:
    if not line.strip() or line.startswith("# "):
        return True
    # an id may start with the mark, too
    match = _LINE.fullmatch(line) if line.lstrip().startswith("#") else None
    return line.lstrip().startswith("#") and not (
        match and match[2].lower() in PART_WORDS and ids.find(match[1]) in ids
    )


def _columns(line: str) -> tuple[str, int, int] | None:
    """Delimiter and columns of id and part, if a line has the names of columns."""
    for delimiter in "\t,;":
        names = [re.sub(r"[\s_-]", "", cell).lower() for cell in split_cells(line, delimiter=delimiter)]
        id_columns = [column for column, name in enumerate(names) if _ID_COLUMN.fullmatch(name)]
        part_columns = [column for column, name in enumerate(names) if _PART_COLUMN.fullmatch(name)]
        if id_columns and part_columns:
            return delimiter, id_columns[0], part_columns[0]
    return None


def _add_line(found: SplitList, place: str, line: str, ids: Ids) -> None:
    name, tab, word = line.rpartition("\t")
    if tab and name in ids and word in PART_WORDS:
        # as this program writes it: the id may start or end with any of the separators
        found.add(place, name, word, ids)
        return
    match = _LINE.fullmatch(line)
    if match is None or match[2].lower().strip('"') not in PART_WORDS:
        # a comment may follow
        match = _LINE.fullmatch(_COMMENT.sub("", line)) or match
    if match is None:
        found.problems.append(f"{place}: expected 'id<TAB>part', got {line!r}")
    else:
        found.add(place, _unquote(match[1]), _unquote(match[2]), ids)


def _unquote(cell: str) -> str:
    return cell[1:-1].replace('""', '"') if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _candidates(name: str) -> list[str]:
    """Ids that a name may mean: the name; then without ending and outer folders, the longest first."""
    path = PurePosixPath(name.replace("\\", "/"))
    ending = _EXTENSION.search(path.name)
    stem = path.name[: ending.start()] if ending and ending.end() == len(path.name) else path.name
    folders = [part for part in path.parts[:-1] if part not in ("/", ".")]
    inner = ["/".join([*folders[start:], stem]) for start in range(len(folders))]
    # ids of equal names begin with their subset, which may be any folder of the path
    names = [name, *inner, *(f"{folder}/{stem}" for folder in reversed(folders)), stem]
    # ids of prepared sets have composed letters, see `mhsvm.prepare.roles.stem_of`; those of older sets may not
    composed = [unicodedata.normalize("NFC", each) for each in names]
    return names if composed == names else [*names, *composed]
