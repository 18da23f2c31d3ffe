"""Which files are images and which are masks, by the names that people give to folders and files."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath
from typing import NamedTuple

from mhsvm.prepare.formats import unread_kind

_LONG_SUBSET = r"train(?:ing)?|val(?:id(?:ation)?)?|test(?:ing)?"
_IMAGE_FOLDER = r"images?|imgs?|(?:image|img)dir|jpegimages|pngimages|originals?|inputs?|photos?"
_MASK_FOLDER = (
    r"masks?|labels?|gts?|anns?|(?:ann|mask|label)dir|annotations?|segs?|segmentations?|segmentationclass(?:png|raw)?|"
    r"binarymasks?|targets?|.*groundtruth.*"
)
# Names without spaces, "-" and "_", such as "masks", "trainimages", "imagesTr" (nnU-Net) and "trainx" (Kaggle).
_FOLDER = re.compile(
    rf"(?P<first>{_LONG_SUBSET})?(?:(?P<image>{_IMAGE_FOLDER})|(?P<mask>{_MASK_FOLDER}))(?P<last>{_LONG_SUBSET}|tr|ts)?|"
    rf"(?P<only>{_LONG_SUBSET})(?P<letter>[xy])?",
    re.IGNORECASE,
)
_PREDICTIONS = re.compile(r"(?:preds?|predictions?|predicted)(?:masks?|segs?|labels?)?", re.IGNORECASE)
_TARGETS = re.compile(r"gts?|targets?|truths?|.*groundtruth.*", re.IGNORECASE)
_SUBSETS = {"tr": "train", "va": "val", "te": "test", "ts": "test"}
# Names of images in nnU-Net's folders end with a channel, names in Kaggle's trainx and trainy begin with the letter.
_CHANNEL, _LETTER = re.compile(r"_0000$"), re.compile(r"^[xy]_(?=\d)", re.IGNORECASE)

# Endings by which masks are known; of several masks of an image (BUSI) each has a number.
_WORDS = r"segmentation|seg|mask|lesion|label|gt|ground[_-]?truth|contour"
_MASK_ENDING = re.compile(rf"[_.\- ](?:{_WORDS}|masks?_\d+)$", re.IGNORECASE)
_PREDICTION_ENDING = re.compile(rf"[_.\- ](?:{_WORDS}|pred(?:iction)?)$", re.IGNORECASE)


class FolderName(NamedTuple):
    """Meaning of a folder's name: "image", "mask" or ""; and "train", "val", "test" or ""."""

    role: str
    subset: str


@dataclass(frozen=True)
class Ending:
    """The ending of masks' names, such as `_segmentation`, which is not part of their ids."""

    pattern: re.Pattern[str]

    def is_in(self, stem: str) -> bool:
        """Whether a name without extension has the ending after at least one character."""
        match = self.pattern.search(stem)
        return match is not None and match.start() > 0

    def remove(self, stem: str) -> str:
        """A name without its ending, if it has one."""
        return self.pattern.sub("", stem) if self.is_in(stem) else stem


# UWaterloo has NAME_orig.jpg and NAME_contour.png.
IMAGE_ENDING = Ending(re.compile(r"[_.\- ]orig(?:inal)?$", re.IGNORECASE))
MASK_ENDING, PREDICTION_ENDING = Ending(_MASK_ENDING), Ending(_PREDICTION_ENDING)


def own_ending(suffix: str | None, usual: Ending = MASK_ENDING) -> Ending:
    """The ending that a user names, such as "_seg" or "_seg.png"; None takes the usual ones.

    Raises:
        ValueError: The ending is empty.
    """
    if suffix is None:
        return usual
    text = re.sub(r"\.\w{3,4}$", "", suffix)
    if not text.strip("_.- "):
        raise ValueError(f"`mask_suffix` is the end of the masks' names, such as _seg; received {suffix!r}")
    return Ending(re.compile(re.escape(text) + "$", re.IGNORECASE))


@cache
def read_folder_name(name: str) -> FolderName:
    """Role and subset that the name of a folder or archive states; most names state neither."""
    match = _FOLDER.fullmatch(re.sub(r"[\s_-]", "", name))
    if match is None:
        return FolderName("", "")
    role = {"x": "image", "y": "mask"}.get((match["letter"] or "").lower(), "")
    subset = match["first"] or match["last"] or match["only"] or ""
    return FolderName(
        "image" if match["image"] else "mask" if match["mask"] else role, _SUBSETS.get(subset[:2].lower(), "")
    )


def folder_use(name: str) -> str:
    """Content that a folder's name states: "prediction", "target", "image" or ""; `masks` may be the first two."""
    plain = re.sub(r"[\s_-]", "", name)
    if _PREDICTIONS.fullmatch(plain):
        return "prediction"
    return "target" if _TARGETS.fullmatch(plain) else read_folder_name(name).role.removeprefix("mask")


def stem_of(path: str) -> str:
    """Name of a file without extension, channel of nnU-Net, and letter of Kaggle; letters with accents are composed."""
    # macOS writes an accent as a character of its own, so that the names of an image and its mask may differ
    path = unicodedata.normalize("NFC", path)
    parts, kind = PurePosixPath(path).parts, unread_kind(path)
    stem = PurePosixPath(path).stem if kind is None else parts[-1][: -len(kind)]
    folder = re.sub(r"[\s_-]", "", parts[-2] if len(parts) > 1 else "").lower().removesuffix(".zip")
    if re.fullmatch(r"images(tr|ts|val)", folder):
        return _CHANNEL.sub("", stem)
    if re.fullmatch(rf"({_LONG_SUBSET})[xy]", folder):
        return _LETTER.sub("", stem)
    return stem


def roles_by_name(stems: Sequence[str], ending: Ending) -> list[str]:
    """Roles of files in one folder, "image" or "mask", by the ending of masks.

    A file is a mask if it has the ending, and there is the image that it belongs to, or no mask of itself.
    """
    known = set(stems)
    bases = {ending.remove(stem) for stem in known if ending.is_in(stem)}

    def is_mask(stem: str) -> bool:
        return ending.is_in(stem) and (ending.remove(stem) in known or stem not in bases)

    return ["mask" if is_mask(stem) else "image" for stem in stems]


def settle_roles(folder_roles: Iterable[str], stems: Sequence[str], ending: Ending) -> list[str]:
    """Roles of the files of a user's own set: "image", "mask" or "".

    Folders of images and folders of masks decide, and other files have no role. Otherwise names decide; with folders of
    masks alone, those decide for their files.

    Args:
        folder_roles: Role of each file by its folders, or "".
        stems: Result of `stem_of` for each file.
        ending: Ending of masks.
    """
    folder_roles = list(folder_roles)
    if {"image", "mask"} <= set(folder_roles):
        return folder_roles
    by_name = roles_by_name(stems, ending)
    if set(folder_roles) != {"", "mask"}:
        return by_name
    return [role or name for role, name in zip(folder_roles, by_name, strict=True)]
