"""The path of a prepared set, checked before any image is decoded."""

import os
import shutil
from pathlib import Path


def check_out(out: Path, source: str, *, overwrite: bool) -> None:
    """Make sure that a prepared set can be written to a path.

    Raises:
        ValueError: It is a folder, or below a file.
        FileExistsError: It exists and must not be replaced.
        PermissionError: Its folder is not writable.
    """
    if out.is_dir():
        raise ValueError(f"the prepared set is one file; {out} is a folder: give such as {out / f'{source}.h5'}")
    if out.exists() and not overwrite:
        raise FileExistsError(f"{out} exists already; give `overwrite` to replace it")
    folder = _existing_folder(out)
    if not folder.is_dir():
        raise ValueError(f"{out} cannot be written: {folder} is a file. Choose another path")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise PermissionError(f"{out} cannot be written: the folder {folder} is not writable. Choose another path")


def check_space(out: Path, num_images: int, size: tuple[int, int]) -> None:
    """Make sure that the images of a set, which are stored without compression, have space on the disk.

    Raises:
        OSError: They have not.
    """
    needed = num_images * size[0] * size[1] * 3
    free = shutil.disk_usage(_existing_folder(out)).free
    if needed > free:
        raise OSError(
            f"{out} needs {needed / 2**30:.2f} GiB for {num_images} images of {size[0]} x {size[1]} pixels, and "
            f"{free / 2**30:.2f} GiB are free there: make space, or choose another path or a smaller `size`"
        )


def _existing_folder(out: Path) -> Path:
    return next(folder for folder in out.absolute().parents if folder.exists())
