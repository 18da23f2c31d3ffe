"""The one walk over files that are given: folders, zip files, single files, and lists of these.

Hidden files, those of operating systems, superpixels of ISIC and folders of results of this program are left out; the
latter two are counted. Links are followed, but each folder is read once.
"""

import os
import re
import zipfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path, PurePosixPath

from mhsvm.prepare.archive import SourceFile, is_noise, list_archive, readable
from mhsvm.prepare.formats import ARCHIVES, is_read, unread_kind
from mhsvm.prepare.problems import Problems, Rule

NOT_THERE = Rule(
    "no such file or folder", "check the path; a list has one path a line, from its own folder or this one"
)
NOT_COMPLETE = Rule("download that is not complete", "finish it, with the same `mhsvm download`, or remove it")
BAD_LIST = Rule("list of files that cannot be read", "save it as UTF-8 text with one path a line")

# Kinds of files that are left out, after their ending.
UNREAD_IMAGES, UNREAD_ARCHIVES = "images, a format that is not read", "archives, which are not read"
# Endings of lists of files, with one path a line.
LISTS = (".txt", ".lst", ".list")
# Names by which folders of results are recognized: of predictions, tests and scores, comparisons, runs, leaks, sweeps.
_RESULTS = (
    {"settings.json", "predictions.jsonl"},
    {"summary.json", "cases.csv"},
    {"comparison.json", "cases.csv"},
    {"config.yaml", "split.txt"},
    {"config.yaml", "metrics.jsonl"},
    {"pairs.csv", "pairs-1.png"},
)
_BY_CONTENT = ("images without an ending in their names", "images with an unknown ending in their names")
_OF_RESULTS = "folders of results of this program, read only if given themselves"
_SUPERPIXELS = re.compile(r"_superpixels\.[^/.]+$", re.IGNORECASE)
# Archives and tables while `mhsvm download`, or a browser, gets them.
_UNFINISHED = re.compile(r"\.(?:zip|csv)\.(?:partial|part|crdownload|download)$", re.IGNORECASE)
_LONGEST_LIST = 64 * 2**20


@contextmanager
def open_sources(sources: Sequence[Path], problems: Problems) -> Iterator[list[SourceFile]]:
    """List the files of folders, zip files, single files and lists of these, and of the zip files inside folders.

    The name of a file starts with the name of its folder or archive, since archives are often packed without a folder,
    and then the subset is only in the name of the archive. The names of single files start with that of the folder that
    holds all of them.

    Args:
        sources: Folders, zip files, image files, and text files (`LISTS`) with one path a line, in any mix.
        problems: Receives missing files, files that are no zip, encrypted members, members with a path outside the
            archive, and zip bombs. All that is left out is recorded there, and images of formats that are not read.
    Yields:
        The files. They can be read until the block ends, also from several threads.
    """
    paths = expand_lists(sources, problems)
    singles = [Path(os.path.abspath(path)).parent for path in paths if path.is_file() and not _is_archive(path)]
    base = Path(os.path.commonpath(singles)) if singles else Path()
    with ExitStack() as archives:
        walk = _Walk(problems, archives)
        for path in paths:
            walk.add(path, base)
        yield walk.files


def expand_lists(sources: Sequence[Path], problems: Problems) -> list[Path]:
    """Replace each list of files by the paths in it, and leave out repeated paths and those that do not exist."""
    paths: list[Path] = []
    for source in sources:
        paths += _read_list(source, problems) if source.suffix.lower() in LISTS and source.is_file() else [source]
    for path in paths:
        if not path.exists():
            problems.add(NOT_THERE, readable(str(path)))
    return list(dict.fromkeys(path for path in paths if path.exists()))


def _read_list(path: Path, problems: Problems) -> list[Path]:
    """Paths of a list, from its own folder or, where that has no such file, from the working folder."""
    if path.stat().st_size > _LONGEST_LIST:
        problems.add(BAD_LIST, f"{readable(str(path))}: {path.stat().st_size:,} bytes")
        return []
    content = path.read_bytes().removeprefix(b"\xef\xbb\xbf")
    lines = [os.fsdecode(line.strip(b"\r\n\t ")) for line in content.split(b"\n")]
    named = [Path(line) for line in lines if line and "\0" not in line]
    if len(named) < sum(bool(line) for line in lines) or not named:
        problems.add(BAD_LIST, f"{readable(str(path))}: {'no path in it' if not named else 'no text'}")
        return []
    return [path.parent / each if (path.parent / each).exists() or not each.exists() else each for each in named]


def _is_archive(path: Path) -> bool:
    """Whether a file that is given is a zip file; one of any name, unless it is an image, can be."""
    if path.suffix.lower() == ".zip":
        return True
    return not (is_read(path.name) or unread_kind(path.name)) and path.is_file() and zipfile.is_zipfile(path)


class _Walk:
    """Collects files, each of them once."""

    def __init__(self, problems: Problems, archives: ExitStack) -> None:
        self.files: list[SourceFile] = []
        self._problems = problems
        self._archives = archives
        self._visited: set[str] = set()

    def add(self, source: Path, base: Path) -> None:
        """Add a folder, a zip file, or a single file, whose name starts with that of the folder `base`."""
        if _UNFINISHED.search(source.name):
            self._problems.add(NOT_COMPLETE, readable(str(source)))
        elif source.is_dir():
            root = source.resolve().name
            for location in self._walk(source):
                self._add_file(location, PurePosixPath(root, *location.relative_to(source).parts))
        elif _is_archive(source):
            self._add_archive(source)
        else:
            inside = Path(os.path.abspath(source)).relative_to(base)
            self._add_file(source, PurePosixPath(base.name, *inside.parts), is_given=True)

    def _add_file(self, location: Path, name: PurePosixPath, *, is_given: bool = False) -> None:
        if _UNFINISHED.search(location.name):
            self._problems.add(NOT_COMPLETE, readable(str(location)))
        elif location.suffix.lower() == ".zip":
            self._add_archive(location)
        elif self._is_new(os.path.abspath(location)):
            # a broken link has no size; it is reported when it is read
            num_bytes = location.stat().st_size if location.is_file() else 0
            self._keep([SourceFile(readable(str(name)), num_bytes, location)], is_given=is_given)

    def _add_archive(self, location: Path) -> None:
        if self._is_new(os.path.abspath(location)):
            files = list_archive(location, self._problems, self._archives)
            results = _results_in(files)
            kept = [file for file in files if not any(file.name.startswith(f"{folder}/") for folder in results)]
            # a packed folder of results is read if it is given itself
            if not any(is_read(file.name) for file in kept):
                results, kept = [], files
            for folder in results:
                self._problems.leave_out(_OF_RESULTS, folder)
            self._keep(kept)

    def _is_new(self, path: str) -> bool:
        known = path in self._visited
        self._visited.add(path)
        return not known

    def _walk(self, folder: Path) -> Iterator[Path]:
        """Files in a folder and its subfolders, in ascending order."""
        visited: set[Path] = set()
        # links last, so that a folder is read under its own name
        links = [folder]
        steps = (step for link in links for step in os.walk(link, onerror=_refuse))
        for parent, folders, names in steps:
            real = Path(parent).resolve()
            if real in visited:
                self._problems.leave_out("links to folders that are read already", readable(parent))
                folders.clear()
                continue
            visited.add(real)
            # a folder of results is read if it is given itself
            if Path(parent) != folder and any(marks <= {*folders, *names} for marks in _RESULTS):
                self._problems.leave_out(_OF_RESULTS, readable(parent))
                folders.clear()
                continue
            folders[:] = sorted(name for name in folders if not is_noise(name))
            links += [place for name in folders if (place := Path(parent, name)).is_symlink()]
            yield from (Path(parent, name) for name in sorted(names) if not is_noise(name))

    def _keep(self, files: Iterable[SourceFile], *, is_given: bool = False) -> None:
        """Add files but superpixels; these, and images of formats that are not read or not known, are counted."""
        for file in files:
            if _SUPERPIXELS.search(file.name):
                self._problems.leave_out("images of superpixels", file.name)
                continue
            kind = unread_kind(file.name)
            if kind is not None:
                self._problems.leave_out(f"{kind} {UNREAD_ARCHIVES if kind in ARCHIVES else UNREAD_IMAGES}", file.name)
            elif not is_given and not is_read(file.name) and file.looks_like_image():
                self._problems.leave_out(_BY_CONTENT[bool(PurePosixPath(file.name).suffix)], file.name)
            self.files.append(file)


def _results_in(files: Iterable[SourceFile]) -> list[str]:
    """Folders of results of this program in an archive."""
    inside: dict[str, set[str]] = defaultdict(set)
    for file in files:
        parts = PurePosixPath(file.name).parts
        for depth in range(2, len(parts)):
            inside["/".join(parts[:depth])].add(parts[depth])
    return [folder for folder, names in inside.items() if any(marks <= names for marks in _RESULTS)]


def _refuse(error: OSError) -> None:
    # without this, os.walk skips a folder that cannot be read, and its samples are lost
    raise error
