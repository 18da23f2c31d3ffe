"""The raters of a set with several masks an image, by the names of files and folders.

A rater is in the name of a file (`a_rater2.png`, `a_mask_expertB.png`) or of a folder (`masks/alice/a.png`). A mask
that names no rater, such as `masks/a.png` beside these, is the primary mask of its image, such as a consensus.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.official import folders_from_nearest
from mhsvm.prepare.places import is_plain
from mhsvm.prepare.roles import MASK_ENDING, read_folder_name, stem_of
from mhsvm.prepare.sources import Source
from mhsvm.store import check_raters

_WORDS = r"(?:rater|annotator|annot|expert|reader|observer|grader|labell?er|doctor|physician|dermatologist)"
_FOUND = rf"{_WORDS}[_-]?[A-Za-z0-9]+"


@dataclass(frozen=True)
class RatedFile:
    """A mask of a rater: the file, and where they are known the tool and the skill of the rater."""

    rater: str
    file: SourceFile
    tool: str = ""
    skill: str = ""


# Name without rater, and rater, of each file that names one.
Rated = Mapping[SourceFile, tuple[str, RatedFile]]


class RaterNames:
    """Finds the rater of each mask.

    Args:
        source: Naming rules of the set; its `rater_pattern` comes first.
        raters: Names of the raters, the most trusted first; empty takes names such as `rater1` and `expertB`, and
            folders below a folder of masks. None finds none but those of the source.
    Raises:
        ValueError: A name is empty, reserved or given twice.
    """

    def __init__(self, source: Source, raters: Sequence[str] | None) -> None:
        check_raters(raters or ())
        self._pattern = source.rater_pattern
        self._given = None if raters is None else tuple(raters)
        self._known = {name.lower(): name for name in raters or ()}
        names = "|".join(re.escape(name) for name in sorted(self._known, key=len, reverse=True))
        self._ending = None
        if raters is not None:
            self._ending = re.compile(rf"(?P<id>.+?)[_.\- ](?P<rater>{names or _FOUND})", re.IGNORECASE)

    def __bool__(self) -> bool:
        return self._pattern is not None or self._given is not None

    def order(self, found: set[str]) -> tuple[str, ...]:
        """The raters that were found, in the order of the names that were given, else sorted by numbers and letters."""
        return tuple(self._given) if self._given else tuple(sorted(found, key=_natural))

    def read(self, file: SourceFile) -> tuple[str, RatedFile] | None:
        """The name of a mask without its rater, which may have an ending of masks, and the rater; None without one."""
        stem = stem_of(file.name)
        if self._pattern is not None and (match := self._pattern.fullmatch(stem)):
            facts = match.groupdict()
            return match["id"], RatedFile(match["rater"] or "", file, facts.get("tool") or "", facts.get("skill") or "")
        if self._ending is None:
            return None
        for name in (stem, MASK_ENDING.remove(stem)):
            if match := self._ending.fullmatch(name):
                return match["id"], RatedFile(self._known.get(match["rater"].lower(), match["rater"]), file)
        folder = self._folder(file)
        return None if folder is None else (stem, RatedFile(folder, file))

    def number_repeated(self, rated: Rated) -> Rated:
        """Name the second and later masks of an image by one rater like A06-2, if the publisher names the raters.

        The order is that of the files' names. In other sets, two such masks are a problem.
        """
        if self._pattern is None:
            return rated
        stems: dict[tuple[str, str], list[str]] = defaultdict(list)
        numbered = {}
        for file in sorted(rated, key=lambda file: stem_of(file.name)):
            stem, (id_, read) = stem_of(file.name), rated[file]
            known = stems[id_, read.rater]
            # files of one name are copies of one mask
            if stem not in known:
                known.append(stem)
            number = known.index(stem) + 1
            numbered[file] = id_, read if number == 1 else replace(read, rater=f"{read.rater}-{number}")
        return numbered

    def is_folder(self, name: str) -> bool:
        """Whether a folder is one of a rater by its name alone."""
        if self._known:
            return name.lower() in self._known
        return self._given is not None and re.fullmatch(_FOUND, name, re.IGNORECASE) is not None

    def _folder(self, file: SourceFile) -> str | None:
        folders = folders_from_nearest(file.name)
        for name in folders:
            if self.is_folder(name):
                return self._known.get(name.lower(), name)
        if self._known:
            return None
        # the outermost folder of unknown meaning below a folder of masks
        for inner, outer in zip(reversed(folders[:-1]), folders[:0:-1], strict=True):
            if read_folder_name(outer).role == "mask" and is_plain(inner):
                return inner
        return None


def by_rater(masks: Mapping[str, list[SourceFile]], names: RaterNames) -> dict[str, dict[str, list[SourceFile]]]:
    """Divide masks, which have their names without extension, by their raters.

    Returns:
        Masks by their names without extension and rater: first those without a rater, under "", then those of each
        rater, in the order of the raters.
    """
    found: dict[str, dict[str, list[SourceFile]]] = defaultdict(lambda: defaultdict(list))
    every = {file: stem for stem, files in masks.items() for file in files}
    read = names.number_repeated({file: each for file in every if (each := names.read(file)) is not None})
    for file, stem in every.items():
        own_stem, rater = (read[file][0], read[file][1].rater) if file in read else (stem, "")
        found[rater][own_stem].append(file)
    return {rater: found[rater] for rater in ("", *names.order(found.keys() - {""})) if rater in found}


def _natural(name: str) -> list[tuple[bool, int, str]]:
    """A key that sorts rater2 before rater10."""
    parts = re.findall(r"\d+|\D+", name)
    return [(not part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]
