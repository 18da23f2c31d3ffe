"""Role and subset of a file by the names of the folders and archives that contain it."""

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.official import folders_from_nearest, official_folder
from mhsvm.prepare.roles import FolderName, folder_use, read_folder_name


def is_predicted(file: SourceFile) -> bool:
    """Whether a file is in a folder of predictions below the source, and not in one of images or targets there."""
    uses = (folder_use(name) for name in folders_from_nearest(file.name)[:-1])
    return next(filter(None, uses), "") == "prediction"


def folder_role(file: SourceFile) -> str:
    """Role by the innermost folder with a known name: "image", "mask" or ""."""
    roles = (_folder(name).role for name in folders_from_nearest(file.name))
    return next(filter(None, roles), "")


def subset_of(file: SourceFile) -> str:
    """Subset by the innermost folder or archive whose name states one."""
    subsets = (_folder(name).subset for name in folders_from_nearest(file.name))
    return next(filter(None, subsets), "")


def _folder(name: str) -> FolderName:
    official = official_folder(name)
    return read_folder_name(name) if official is None else FolderName(official.role, official.subset)


def is_plain(name: str) -> bool:
    """Whether the name of a folder states neither a role nor a subset."""
    return not any(_folder(name))
