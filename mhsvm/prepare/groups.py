"""Which images belong to one patient or lesion, by a table among the files of a set or by their ids."""

import unicodedata
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.formats import is_read
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.sources import GroupTable, Source
from mhsvm.text_file import Table, parse_table

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
    # a table of the user overrides that of the publisher
    for table in dict.fromkeys([source.group_table, GroupTable()]):
        groups |= _read_table(files, table, ids, problems)
    return groups


def missing_groups(files: Sequence[SourceFile], source: Source, groups: Mapping[str, str]) -> str | None:
    """A note about a set whose publisher gives groups, if there are none; else None."""
    table = source.group_table
    if not table.is_expected or groups:
        return None
    return (
        f"no {table.file_names[0]} among the files: without it, images of one lesion or patient may be in several "
        "parts of a split"
    )


def _read_table(
    files: Sequence[SourceFile], table: GroupTable, ids: Collection[str], problems: Problems
) -> dict[str, str]:
    listed: dict[str, str] = {}
    names = {name.lower() for name in table.file_names}
    for file in files:
        if PurePosixPath(file.name).name.lower() not in names:
            continue
        for place, name, group in _rows(file, table, problems):
            id_ = id_of(name, ids)
            if id_ in listed and listed[id_] != group:
                problems.add(BAD_ROW, f"{place}: {id_} has group {group!r} and group {listed[id_]!r}")
            elif id_ not in ids and not table.lists_others:
                problems.add(BAD_ROW, f"{place}: there is no image {id_!r}")
            listed[id_] = group
    return {id_: group for id_, group in listed.items() if id_ in ids}


def _rows(file: SourceFile, table: GroupTable, problems: Problems) -> Iterator[tuple[str, str, str]]:
    """Place, id and group of each row."""
    content = read_columns(file, problems, BAD_TABLE)
    if content is None:
        return
    columns = {column.strip().lower(): column for column in content.columns}
    missing = {table.id_column, *table.group_columns} - columns.keys()
    if missing:
        problems.add(BAD_TABLE, f"{file.name}: it has no column {' and no column '.join(sorted(missing))}")
        return
    for line, row in zip(content.lines, content.rows, strict=True):
        place = f"{file.name}, line {line}"
        id_ = row[columns[table.id_column]].strip()
        groups = (row[columns[column]].strip() for column in table.group_columns)
        if not id_:
            problems.add(BAD_ROW, f"{place}: expected an id and its group")
        else:
            yield place, unicodedata.normalize("NFC", id_), next(filter(None, groups), "")


def read_columns(file: SourceFile, problems: Problems, rule: Rule) -> Table | None:
    """Read a table among the files of a set; None, and a problem under the rule, if it is none."""
    try:
        text = file.read()
        remedy = "give each line as many cells"
        return parse_table(text, name=file.name, remedy=remedy, delimiter=_delimiter(text))
    except ValueError as error:
        problems.add(rule, str(error) if str(error).startswith(file.name) else f"{file.name}: {error}")
        return None


def _delimiter(content: bytes) -> str:
    """The mark between the names of columns; spreadsheets of many countries write semicolons."""
    names = content.partition(b"\n")[0]
    return max(",;\t", key=lambda mark: names.count(mark.encode()))


def id_of(name: str, ids: Collection[str]) -> str:
    """The id that a table names, which may have the ending of its file."""
    stem = str(PurePosixPath(name).with_suffix("")) if is_read(name) else name
    return stem if name not in ids and stem in ids else name
