"""Files and folders that no other user can have written: code is only loaded from those."""

import os
import stat
from pathlib import Path


def is_own(status: os.stat_result) -> bool:
    """Whether this user, or root, owns a file or folder, and neither group nor others may write to it."""
    if not hasattr(os, "getuid"):
        # Windows keeps other users out of a user's own folders
        return True
    return status.st_uid in (os.getuid(), 0) and not status.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def make_own_folder(folder: Path) -> bool:
    """Make a folder that only this user can write to; False if it exists and others may write to it, or it is a link.

    Raises:
        OSError: It cannot be made.
    """
    folder.mkdir(mode=0o700, exist_ok=True)
    # not through a link, which another user may have left there
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and is_own(status) and os.access(folder, os.W_OK)
