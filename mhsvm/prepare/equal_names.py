"""Ids of files with equal names, by their subsets or folders.

An id is the name of a file. Where two images of a set have one name, such as train/images/1.png and test/images/1.png,
their ids are `train/1` and `test/1`; where their subset is the same, the folders between distinguish them.
"""

from collections.abc import Callable, Mapping
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile

Found = Mapping[str, list[SourceFile]]
Subset = Callable[[SourceFile], str]


def ids_by_place(
    file: SourceFile, id_: str, *, subset_of: Subset, is_plain: Callable[[str], bool]
) -> tuple[str | None, str]:
    """The id of a file with its subset, None if it has none; and with its subset and folders.

    Args:
        file: The file.
        id_: Its name without ending.
        subset_of: "train", "val", "test" or "" of a file.
        is_plain: Whether the name of a folder states neither a role nor a subset.
    """
    subset = subset_of(file)
    folders = [name for name in PurePosixPath(file.name).parts[1:-1] if is_plain(name)]
    return f"{subset}/{id_}" if subset else None, "/".join([*([subset] if subset else []), *folders, id_])


def rename_equal(
    images: Found, masks: Found, *, subset_of: Subset, is_plain: Callable[[str], bool]
) -> tuple[dict[str, list[SourceFile]], dict[str, list[SourceFile]]]:
    """Give files of one id ids of their own, if each side then has at most one file of each.

    Args:
        images, masks: Files by id; or predictions and targets.
        subset_of, is_plain: As in `ids_by_place`.
    Returns:
        Both sides; files that cannot be distinguished keep their id.
    """
    sides: tuple[dict[str, list[SourceFile]], dict[str, list[SourceFile]]] = ({}, {})
    for id_ in dict.fromkeys([*images, *masks]):
        both = [images.get(id_, []), masks.get(id_, [])]
        # by subset first; an archive and its extracted folder hold one image twice, and differ by their folders, too
        names: list[list[str | None]] = [[id_ for _ in files] for files in both]
        if max(map(len, both)) > 1:
            places = [
                [ids_by_place(each, id_, subset_of=subset_of, is_plain=is_plain) for each in files] for files in both
            ]
            ways = (0, 1) if all(_have_one_source(files, subset_of) for files in both) else (0,)
            told = ([[place[way] for place in side] for side in places] for way in ways)
            names = next((way for way in told if all(map(_are_different, way))), names)
        for side, files, ids in zip(sides, both, names, strict=True):
            for file, name in zip(files, ids, strict=True):
                side.setdefault(name or id_, []).append(file)
    return sides


def _are_different(names: list[str | None]) -> bool:
    return None not in names and len(set(names)) == len(names)


def _have_one_source(files: list[SourceFile], subset_of: Subset) -> bool:
    """Whether the files of each subset come from one folder or archive."""
    sources = {(subset_of(file), PurePosixPath(file.name).parts[0]) for file in files}
    return len(sources) == len({subset for subset, _ in sources})
