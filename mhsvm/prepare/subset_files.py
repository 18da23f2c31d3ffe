"""Subsets that a publisher gives as lists of ids, such as train.csv, val.csv and test.csv of IMA++."""

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.groups import id_of, read_columns
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.sources import Source

BAD_LIST = Rule("list of a subset that cannot be read", "get it from the publisher again")
TWO_LISTS = Rule("id in the lists of two subsets", "get the lists from the publisher again")
# Names of the column of ids, in lower case.
_COLUMNS = ("isic_id", "image_id", "id", "image", "img_filename", "filename")


def read_subsets(
    files: Sequence[SourceFile], source: Source, ids: Collection[str], problems: Problems
) -> dict[str, str]:
    """Subset of each id in a list.

    Args:
        files: All files of the set.
        source: Names the lists.
        ids: Ids of the images; lists may have others.
        problems: Receives lists that cannot be read, and ids in two lists.
    """
    subsets: dict[str, str] = {}
    names = {name.lower(): subset for subset, name in source.subset_files.items()}
    for file in files:
        subset = names.get(PurePosixPath(file.name).name.lower())
        if subset is None:
            continue
        for id_ in _read_ids(file, ids, problems):
            if subsets.setdefault(id_, subset) != subset:
                problems.add(TWO_LISTS, f"{id_}: {subsets[id_]} and {subset}, {file.name}")
    return subsets


def missing_lists(files: Sequence[SourceFile], source: Source) -> str | None:
    """A note about the lists of subsets that are not among the files; None if all are."""
    found = {PurePosixPath(file.name).name.lower() for file in files}
    missing = [name for name in source.subset_files.values() if name.lower() not in found]
    return f"no {', '.join(missing)} among the files: images have no official subset without it" if missing else None


def _read_ids(file: SourceFile, ids: Collection[str], problems: Problems) -> list[str]:
    table = read_columns(file, problems, BAD_LIST)
    if table is None:
        return []
    columns = {column.strip().lower(): column for column in table.columns}
    column = next((columns[name] for name in _COLUMNS if name in columns), None)
    if column is None:
        problems.add(BAD_LIST, f"{file.name}: it has no column of ids, such as {' or '.join(_COLUMNS[:2])}")
        return []
    found = (id_of(row[column].strip(), ids) for row in table.rows)
    return [id_ for id_ in found if id_ in ids]
