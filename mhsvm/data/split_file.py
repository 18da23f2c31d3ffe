"""Splits and their text files."""

import hashlib
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from mhsvm.data.split_list import Ids, read_list, shorten_problems
from mhsvm.text_file import encode, read_lines, write_lines

PARTS = ("train", "val", "test")
# Part for images of both validation and test, if a protocol has no separate test set.
VAL_AND_TEST = "val+test"
# Part for ids that are left out intentionally; it occurs in files only.
UNUSED = "unused"

_HEADER = re.compile(r"# mhsvm split, name: (?P<name>.+), sha256: (?P<hash>[0-9a-f]{64})")


@dataclass(frozen=True)
class Split:
    """Assignment of the images of a set to parts.

    Args:
        name: Name of the split, such as "wu-sorted".
        parts: "train", "val", "test" or "val+test" by id, in the order of the set; other ids are unused.
    """

    name: str
    parts: dict[str, str]

    def ids(self, part: str) -> tuple[str, ...]:
        """Ids of "train", "val" or "test" in the order of the set; ids of "val+test" are in both parts."""
        if part not in PARTS:
            raise ValueError(f"a part is one of {', '.join(PARTS)}, got {part!r}")
        return tuple(image_id for image_id, own in self.parts.items() if part in own.split("+"))

    @property
    def val_is_test(self) -> bool:
        """Whether the checkpoint is selected and tested on the same images."""
        return VAL_AND_TEST in self.parts.values()

    @property
    def hash(self) -> str:
        """sha256 in hex of the sorted lines "id<TAB>part", independent of name and order."""
        lines = sorted(f"{image_id}\t{part}\n" for image_id, part in self.parts.items())
        return hashlib.sha256(encode("".join(lines))).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write a comment with name and hash, and lines "id<TAB>part"."""
        lines = [f"# mhsvm split, name: {self.name}, sha256: {self.hash}"]
        write_lines(path, lines + [f"{image_id}\t{part}" for image_id, part in self.parts.items()])

    @classmethod
    def load(cls, path: str | Path) -> "Split":
        """Read a file that `save` wrote, or a list made by hand (see `SplitFile`).

        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: Lines are malformed, ids are repeated, or the hash in the header is wrong.
        """
        file = SplitFile.read(path)
        file.raise_problems()
        return cls(file.name or f"file:{path}", file.used_parts)


@dataclass(frozen=True)
class SplitFile:
    """A list of ids and parts in a file: lines of id and part, or a CSV table with a line of column names.

    Lines are separated by a tab, a comma, a semicolon or spaces, and the last separator counts, so ids may contain
    spaces and commas. "#" starts a comment. A part is "train", "val", "test", "val+test", "unused", or a usual word for
    one, such as "validation". An id may be written as the path of its file. Problems are collected, so that a caller
    can add problems and report all of them together.

    Args:
        path: Path of the file.
        name: Name in the header of a saved split; None in a list made by hand.
        parts: Part by id, including "unused".
        problems: Descriptions of the problems.
        unknown: Names that are no id of the set, each with similar ids.
    """

    path: Path
    name: str | None
    parts: dict[str, str]
    problems: list[str]
    unknown: list[str]

    @property
    def used_parts(self) -> dict[str, str]:
        return {image_id: part for image_id, part in self.parts.items() if part != UNUSED}

    @classmethod
    def read(cls, path: str | Path, ids: Collection[str] | None = None) -> "SplitFile":
        """Read a file; problems of single lines are collected, not raised.

        Args:
            path: The file.
            ids: Ids of the set; None takes every name for an id.
        Raises:
            FileNotFoundError: The file does not exist.
            ValueError: The file is not text.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"split file {path} does not exist: check the path")
        lines = read_lines(path)
        header, known = _HEADER.fullmatch(lines[0]) if lines else None, Ids(ids)
        # the ids of a saved split are written as they are
        found = read_list(lines, Ids(None) if header else known)
        problems = shorten_problems(found.problems)
        if header and not problems and (changed := Split("", found.parts).hash) != header["hash"]:
            problems.append(
                f"its lines have the hash {changed[:12]}, its header says {header['hash'][:12]}: it was "
                f"changed after it was saved; if that is intended, delete the header line"
            )
        unknown = [known.describe(image_id) for image_id in found.parts if image_id not in known]
        return cls(path, header["name"] if header else None, found.parts, problems, unknown)

    def raise_problems(self) -> None:
        """Raise ValueError with all problems, if there are any."""
        if self.problems:
            raise ValueError(f"split file {self.path}:\n  " + "\n  ".join(self.problems))
