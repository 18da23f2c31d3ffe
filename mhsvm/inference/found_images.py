"""The images of folders, zip files and lists, each with a path of its own for its results."""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import NamedTuple

from mhsvm.prepare.archive import SourceFile, readable
from mhsvm.prepare.formats import ARCHIVES, NAMES, is_read, unread_kind
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.walk import UNREAD_IMAGES, expand_lists, open_sources


class ImageFile(NamedTuple):
    """An image to segment: its file, its path in the source, and the path of its results without an ending."""

    file: SourceFile
    image: str
    name: PurePath


class FoundImages(NamedTuple):
    """Images of sources.

    Attributes:
        images: The images, by ascending path.
        num_unread: Number of images of formats that are not read.
        unread: Lines about these, by kind.
        unsound: Lines about archives that cannot be read.
        left_out: Lines about all else that is left out, by kind.
    """

    images: list[ImageFile]
    num_unread: int
    unread: list[str]
    unsound: list[str]
    left_out: list[str]


@contextmanager
def open_images(sources: Sequence[Path]) -> Iterator[FoundImages]:
    """Find the images of sources; see `mhsvm.prepare.walk.open_sources`.

    The path of an image starts at the folder or zip file or, if several sources are given, at the folder that holds
    them all.

    Args:
        sources: Images, folders, zip files, and text files with one path a line.
    Yields:
        The images, which can be read until the block ends.
    Raises:
        FileNotFoundError: There is no such file or folder, or no image in it.
        ValueError: A list cannot be read, or names files that do not exist.
    """
    for source in sources:
        if not source.exists():
            raise FileNotFoundError(f"there is no image and no folder {readable(str(source))}")
    listed = Problems()
    paths = expand_lists(sources, listed)
    listed.raise_if_any("the list of images has problems, and nothing was segmented:")
    problems, given = Problems(), {os.path.abspath(path) for path in paths}
    with open_sources(paths, problems) as files:
        images = [file for file in files if _is_image(file, given)]
        kinds = [unread_kind(file.name) for file in files if not is_read(file.name)]
        num_unread = sum(kind is not None and kind not in ARCHIVES for kind in kinds)
        unsound = [line for block in problems.describe() for line in block.split("\n")]
        unread = [line for line in problems.left_out() if UNREAD_IMAGES in line]
        left_out = [line for line in problems.left_out() if UNREAD_IMAGES not in line]
        if not images:
            found = "".join(f"\n  left out: {line}" for line in problems.left_out())
            raise FileNotFoundError(
                f"there is no image in {readable(', '.join(map(str, sources)))}; looked for {NAMES}"
                + "\n".join([found, *unsound])
            )
        yield FoundImages(_name_images(images, paths), num_unread, unread, unsound, left_out)


def _is_image(file: SourceFile, given: set[str]) -> bool:
    """Whether a file is an image by its ending, or one without a known ending that was given itself."""
    is_given = file.member is None and os.path.abspath(file.location) in given
    return is_read(file.name) or (is_given and unread_kind(file.name) is None)


def _name_images(files: Iterable[SourceFile], paths: Sequence[Path]) -> list[ImageFile]:
    base = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    if len(paths) == 1 and paths[0].is_dir():
        base = os.path.abspath(paths[0])
    inside = len(paths) == 1 and paths[0].is_file()

    def place(file: SourceFile) -> PurePosixPath:
        location = readable(os.path.relpath(os.path.abspath(file.location), base)).replace(os.sep, "/")
        member = file.name.partition("/")[2] if file.member is not None else ""
        return PurePosixPath(member if inside and member else location, "" if inside else member)

    placed = sorted(((place(file), file) for file in files), key=lambda pair: (pair[0], os.fsencode(pair[1].location)))
    distinct = _distinct([path for path, _ in placed])
    names = _result_names(distinct)
    return [ImageFile(file, str(path), name) for (_, file), path, name in zip(placed, distinct, names, strict=True)]


def _distinct(paths: Iterable[PurePosixPath]) -> list[PurePosixPath]:
    """Number equal paths: members of a zip file, or names that are not UTF-8 and became equal as text."""
    found: dict[PurePosixPath, None] = {}
    for path in paths:
        other, number = path, 1
        while other in found:
            number += 1
            other = path.with_name(f"{path.stem}~{number}{path.suffix}")
        found[other] = None
    return list(found)


def _result_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """The path of each image without its ending; with the ending where two results would have the same path."""
    # some file systems do not distinguish capitals
    stems = Counter(str(path.with_suffix("")).lower() for path in paths)
    whole = {str(path).lower() for path in paths}

    def is_free(stem: PurePath) -> bool:
        return stems[str(stem).lower()] == 1 and str(stem).lower() not in whole

    return [path.with_suffix("") if is_free(path.with_suffix("")) else path for path in paths]
