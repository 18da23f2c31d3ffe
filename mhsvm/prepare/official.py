"""Folders and archives as their publishers name them, and public sets recognized by their files.

Only a whole name counts, such as ISIC2018_Task1_Training_GroundTruth: a user's own folder may be called isic2017_2018.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import PurePosixPath

from mhsvm.prepare.official_ids import set_of_ids

_ISIC = re.compile(
    r"(?:isic|isbi)[-_ ]?(?P<year>20\d\d)(?:[-_]isic)?(?:[-_](?P<task>(?:task|part)\d(?:-\d)?[a-z]?))?"
    r"[-_](?P<subset>train|val|test)(?:ing|idation)?(?:[-_]v\d+)?(?:[-_](?P<part>part\d[a-z]?))?"
    r"[-_](?P<role>data|input|images?|jpeg|dicom|ground_?truth)",
    re.IGNORECASE,
)
_HAM10000 = re.compile(r"ham10000_(?P<role>images|segmentations?|masks)(?:_part_?\d+|_lesion(?:_tschandl)?)?", re.I)
# Names of files that belong to one set in whichever folder: all of PH2, and masks of IMA++.
_FILES = {
    "PH2": re.compile(r"IMD\d{3}(?:_lesion|_R\d+_Label\d+)?\.\w+", re.IGNORECASE),
    "IMA++": re.compile(r"ISIC_\d{7}_(?:A\d\d_T\d_S\d(?:_[0-9a-f]+)?|(MV|ST)(?:_\1)+)\.\w+"),
}
# A name gets such an ending as a new version, or where it is downloaded twice or in parts.
_ENDING = re.compile(r"(?:[-_ ]{0,3}(?:v\d+|copy|\d{8}T\d{6}Z|\d+|\((?:\d+|copy)\)))+$", re.IGNORECASE)
_SEGMENTATION = ("", "part1", "task1", "task1-2")
_HAM10000_IDS, _HAM10000_COUNT = range(24306, 34321), 10015
_ISIC2016_COUNTS, _ISIC2016_LAST_ID = {"train": 900, "test": 379}, 11402


@dataclass(frozen=True)
class OfficialFolder:
    """A folder or archive of a publisher.

    Attributes:
        set: Name of the set, such as "ISIC 2018".
        task: Its task or part, such as "task2"; "" if the name states none.
        subset: "train", "val", "test" or "".
        role: "image" or "mask".
    """

    set: str
    task: str
    subset: str
    role: str

    @property
    def segments(self) -> bool:
        """Whether it belongs to the segmentation of lesions."""
        return self.task in _SEGMENTATION

    def __str__(self) -> str:
        return f"{self.set} {self.task}".strip()


@cache
def official_folder(name: str) -> OfficialFolder | None:
    """The folder or archive that a publisher calls `name`, without the ending .zip; None if there is none."""
    for known in (name, _ENDING.sub("", name)):
        if match := _ISIC.fullmatch(known):
            role = "mask" if match["role"].lower().startswith("ground") else "image"
            task = (match["task"] or match["part"] or "").lower()
            return OfficialFolder(f"ISIC {match['year']}", task, match["subset"].lower(), role)
        if match := _HAM10000.fullmatch(known):
            return OfficialFolder("HAM10000", "", "", "image" if match["role"].lower() == "images" else "mask")
    return None


def official_origin(path: str) -> OfficialFolder | None:
    """The innermost official folder or archive that contains a file, or else the set of its own name."""
    found = (official_folder(name) for name in folders_from_nearest(path))
    folder = next((folder for folder in found if folder is not None), None)
    if folder is not None:
        return folder
    name = PurePosixPath(path).name
    return next((OfficialFolder(set_, "", "", "") for set_, names in _FILES.items() if names.fullmatch(name)), None)


def folders_from_nearest(path: str) -> list[str]:
    """Names of the folders and archives that contain a file, the innermost first, without the ending .zip."""
    return [re.sub(r"\.zip$", "", part, flags=re.IGNORECASE) for part in PurePosixPath(path).parts[-2::-1]]


def recognize(ids: Collection[str], masks: Iterable[str], subsets: Iterable[str]) -> str | None:
    """Name a public set by its ids, the names of its masks and its counts, not by its folders.

    Args:
        ids: Id of each image.
        masks: Path of each mask. One in an official folder is not looked at: its folder says where it belongs.
        subsets: Subset of each image, or "".
    Returns:
        "ISIC 2016", "ISIC 2017", "ISIC 2018", "HAM10000", "IMA++", or None. A part of a subset of 2017 or 2018 is not
        recognized, because it may be one of either.
    """
    masks = list(masks)
    if any(official_origin(path) for path in masks):
        return None
    exact = set_of_ids(ids)
    if exact is not None:
        return exact
    numbers = [int(match[1]) for id_ in ids if (match := re.fullmatch(r"ISIC_(\d{7})", id_))]
    if len(numbers) < len(ids) or not numbers:
        return None
    # no image of the ISIC challenges' segmentation tasks up to 2017 has such a number, and few of 2018
    if len(ids) == _HAM10000_COUNT or 10 * sum(number in _HAM10000_IDS for number in numbers) > 9 * len(numbers):
        return "HAM10000"
    endings = Counter(PurePosixPath(path).stem.endswith("_Segmentation") for path in masks)
    # a part of ISIC 2017 with as many images would have later ids, too
    counts = (*_ISIC2016_COUNTS.values(), sum(_ISIC2016_COUNTS.values()))
    of_2016 = Counter(subsets) == _ISIC2016_COUNTS or (len(ids) in counts and max(numbers) <= _ISIC2016_LAST_ID)
    return "ISIC 2016" if of_2016 or endings[True] > endings[False] else None
