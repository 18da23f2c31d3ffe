"""Folders of results that are made again as a whole, such as those of tests: only files of ours are ever replaced."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from mhsvm.files import full_disk_named, make_partial_folder

# Programs that show a folder put these there; they stay, and are no reason to refuse it.
_OF_SYSTEMS = (".DS_Store", "Thumbs.db", "desktop.ini")
_MARK_BYTES = 200
# Stem of the hidden subfolder.
_NAME = "results"


@dataclass(frozen=True)
class ResultFolder:
    """The files of one kind of results, by which a folder of them is known.

    The new files are written to a hidden subfolder first. Then they replace the older ones, one by one, so that the
    folder may be the current one, a mounted one or the target of a link. A process that is killed in between leaves no
    `main`, and the folder can be written again.

    Attributes:
        kind: Noun for messages, such as "a test".
        main: The file without which the results are not complete; it is removed first and written last.
        mark: Bytes near its start that no other program's file of that name has.
        others: Patterns of all other files, as paths in the folder.
    """

    kind: str
    main: str
    mark: bytes
    others: tuple[str, ...]

    def check(self, folder: Path) -> None:
        """Make sure that a folder is new, empty, or holds older results and nothing else.

        Raises:
            FileExistsError: It is a file, or holds something else, which is named.
        """
        if folder.is_symlink() and not folder.exists():
            raise FileExistsError(f"{folder} is a link to nothing: remove it, or choose another one with `folder`")
        if folder.exists() and not folder.is_dir():
            raise FileExistsError(f"{folder} is a file, not a folder: choose another one with `folder`")
        present, foreign = self._entries(folder)
        if (present or foreign) and not self._is_ours(folder, present):
            raise FileExistsError(
                f"{folder} exists and is not the folder of {self.kind}: choose another one with `folder`"
            )
        if foreign:
            more = f" and {len(foreign) - 1} more" if len(foreign) > 1 else ""
            raise FileExistsError(
                f"{folder} holds more than {self.kind}, {foreign[0]}{more}, and nothing of it is removed: move that "
                "elsewhere, or choose another one with `folder`"
            )

    @contextmanager
    def replace(self, folder: Path) -> Iterator[Path]:
        """Yield an empty folder to fill; its files replace the older results when the block ends without an error.

        Raises:
            FileExistsError: See `check`.
            OSError: The disk is full; the older results stay.
        """
        self.check(folder)
        created = not folder.exists()
        partial = make_partial_folder(folder / _NAME, named=folder)
        try:
            with full_disk_named(folder):
                yield partial
            self._move(partial, folder)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            if created and not any(folder.iterdir()):
                folder.rmdir()

    def _move(self, partial: Path, folder: Path) -> None:
        new = [path.relative_to(partial) for path in sorted(partial.rglob("*")) if not path.is_dir()]
        foreign = [path for path in new if not self._is_own(path)]
        assert not foreign, f"not among the known files of {self.kind}: {foreign}"
        (folder / self.main).unlink(missing_ok=True)
        older, _ = self._entries(folder)
        for path in {*older} - {*new}:
            (folder / path).unlink()
        for path in sorted(new, key=lambda path: path == Path(self.main)):
            (folder / path).parent.mkdir(exist_ok=True)
            os.replace(partial / path, folder / path)
        for subfolder in self._subfolders():
            if (folder / subfolder).is_dir() and not any((folder / subfolder).iterdir()):
                (folder / subfolder).rmdir()

    def _entries(self, folder: Path) -> tuple[list[Path], list[Path]]:
        """Paths of our files in a folder, and those of all other files and subfolders but the partial ones."""
        own: list[Path] = []
        foreign: list[Path] = []
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            inside = Path(path.name)
            if path.name in _OF_SYSTEMS or path.match(".*.partial"):
                continue
            if path.is_dir() and not path.is_symlink() and path.name in self._subfolders():
                for each in sorted(path.iterdir()):
                    if each.name not in _OF_SYSTEMS:
                        is_own = each.is_file() and not each.is_symlink() and self._is_own(inside / each.name)
                        (own if is_own else foreign).append(inside / each.name)
            else:
                is_own = path.is_file() and not path.is_symlink() and self._is_own(inside)
                (own if is_own else foreign).append(inside)
        return own, foreign

    def _is_ours(self, folder: Path, present: list[Path]) -> bool:
        if Path(self.main) not in present:
            # a process was killed while it replaced the files
            return any(folder.glob(f".{_NAME}.*.partial"))
        with (folder / self.main).open("rb") as file:
            return self.mark in file.read(_MARK_BYTES)

    def _is_own(self, path: Path) -> bool:
        patterns = (PurePosixPath(pattern) for pattern in (self.main, *self.others))
        return any(len(each.parts) == len(path.parts) and path.match(str(each)) for each in patterns)

    def _subfolders(self) -> set[str]:
        return {PurePosixPath(pattern).parts[0] for pattern in self.others if "/" in pattern}
