"""Where files go that are made from a data set and can be made again."""

import hashlib
import os
from pathlib import Path


def cache_path(folder: Path, name: str) -> Path:
    """`.NAME` in a folder; where it cannot be written to, NAME in that folder's own place in the user's cache."""
    if os.access(folder, os.W_OK):
        return folder / f".{name}"
    key = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:16]
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mhsvm" / key / name
