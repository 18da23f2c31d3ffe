"""Files of a source by their names: images, masks, and those of one id."""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.formats import ARCHIVES, is_read, unread_kind
from mhsvm.prepare.places import folder_role
from mhsvm.prepare.problems import Problems, Rule
from mhsvm.prepare.roles import Ending, stem_of

DUPLICATE = Rule(
    "id that occurs twice",
    "give an archive or its extracted folder, not both; give the folder around several of one name; rename files "
    "of one name; masks of one image are parts of one with `merge_masks`, or those of several raters with `raters`",
)
UNREAD = Rule("image of a format that is not read", "save it as PNG, or move it away")


def is_image(file: SourceFile) -> bool:
    """Whether a file is an image, of a format that is read or not."""
    kind = unread_kind(file.name)
    return is_read(file.name) or (kind is not None and kind not in ARCHIVES)


def is_mask(file: SourceFile, ending: Ending) -> bool:
    """Whether an image is a mask, by its folder or the ending of its name."""
    return folder_role(file) == "mask" or ending.is_in(stem_of(file.name))


def note_duplicates(found: Mapping[str, list[SourceFile]], problems: Problems) -> None:
    """Add a problem for each id of several files."""
    for id_, same in found.items():
        if len(same) > 1:
            problems.add(DUPLICATE, f"{id_}: {', '.join(file.name for file in same)}")


def overview(files: Iterable[SourceFile]) -> str:
    """Summarize the most common kinds of files by outer folder."""
    paths = [PurePosixPath(file.name) for file in files]
    kinds = Counter(("/".join(path.parts[:-1][:2]), path.suffix.lower() or "without extension") for path in paths)
    if not kinds:
        return "no files"
    shown = [f"{count} {kind} in {folder}" for (folder, kind), count in kinds.most_common(5)]
    return ", ".join(shown) + (f", ... and {len(kinds) - 5} more kinds" if len(kinds) > 5 else "")
