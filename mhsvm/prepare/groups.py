"""Which images belong to one patient or lesion, by a table among the files of a set or by their ids."""

import unicodedata
from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.formats import is_read
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.sources import Source
from mhsvm.text_file import parse_table

BAD_TABLE = Rule("table of groups that cannot be read", "save it as CSV in UTF-8, with a header line")
BAD_ROW = Rule("bad row in a table of groups", "give each id of an image once, with its group")


def read_groups(
    files: Sequence[SourceFile], source: Source, ids: Collection[str], problems: Problems
) -> dict[str, str]:
    """Group of each id that has one.

    Args:
        files: All files of the set.
        source: Names the table and its columns, in any case, or the pattern of ids.
        ids: Ids of the images.
        problems: Takes tables that cannot be read, and rows with an unknown, repeated or missing id.
    """
    groups: dict[str, str] = {}
    if source.group_pattern is not None:
        matches = {id_: source.group_pattern.search(id_) for id_ in ids}
        groups = {id_: match[1] for id_, match in matches.items() if match}
    table = source.group_table
    listed: dict[str, str] = {}
    for file in files:
        if PurePosixPath(file.name).name.lower() != table.file_name.lower():
            continue
        for place, name, group in _rows(file, source, problems):
            id_ = _id_of(name, ids)
            if id_ in listed and listed[id_] != group:
                problems.add(BAD_ROW, f"{place}: {id_} has group {group!r} and group {listed[id_]!r}")
            elif id_ not in ids and not table.lists_others:
                problems.add(BAD_ROW, f"{place}: there is no image {id_!r}")
            listed[id_] = group
    return groups | {id_: group for id_, group in listed.items() if id_ in ids}


def _rows(file: SourceFile, source: Source, problems: Problems) -> Iterator[tuple[str, str, str]]:
    """Place, id and group of each row."""
    table = source.group_table
    try:
        text = file.read()
        remedy = "give each line as many cells"
        content = parse_table(text, name=file.name, remedy=remedy, delimiter=_delimiter(text))
    except ValueError as error:
        problems.add(BAD_TABLE, str(error) if str(error).startswith(file.name) else f"{file.name}: {error}")
        return
    columns = {column.strip().lower(): column for column in content.columns}
    missing = {table.id_column, table.group_column} - columns.keys()
    if missing:
        problems.add(BAD_TABLE, f"{file.name}: it has no column {' and no column '.join(sorted(missing))}")
        return
    for line, row in zip(content.lines, content.rows, strict=True):
        place = f"{file.name}, line {line}"
        id_, group = row[columns[table.id_column]].strip(), row[columns[table.group_column]]
        if not id_:
            problems.add(BAD_ROW, f"{place}: expected an id and its group")
        else:
            yield place, unicodedata.normalize("NFC", id_), group.strip()


def _delimiter(content: bytes) -> str:
    """The mark between the names of columns; spreadsheets of many countries write semicolons."""
    names = content.partition(b"\n")[0]
    return max(",;\t", key=lambda mark: names.count(mark.encode()))


def _id_of(name: str, ids: Collection[str]) -> str:
    """The id that a table names, which may have the ending of its file."""
    stem = str(PurePosixPath(name).with_suffix("")) if is_read(name) else name
    return stem if name not in ids and stem in ids else name
