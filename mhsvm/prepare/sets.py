"""From what a user types to an open set: a name, a prepared file, or a folder that is used as it is."""

import hashlib
from pathlib import Path

from mhsvm.cache import cache_path
from mhsvm.prepare.archive import SourceFile, open_sources
from mhsvm.prepare.pairs import EXTENSIONS
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.resize import Size, as_height_width
from mhsvm.prepare.sources import SOURCES
from mhsvm.store import PredictionSet, PreparedSet

# The attribute of a set prepared from a folder by which a change of the folder is noticed.
_FOLDER_STATE = "folder_state"


def find_set(name_or_path: str | Path, root: str | Path = "data") -> Path:
    """The file or folder of a data set.

    Args:
        name_or_path: NAME, for root/NAME.h5 or else root/NAME/; or the path of a prepared file or a folder.
        root: The folder where prepared sets land.
    Raises:
        FileNotFoundError: None of them exists; what is in `root` is named.
    """
    root = Path(root)
    for path in (root / f"{name_or_path}.h5", root / name_or_path, Path(name_or_path)):
        if path.exists():
            return path
    entries = sorted(root.iterdir()) if root.is_dir() else []
    known = [path.name for path in entries if path.is_dir() or path.suffix == ".h5"]
    raise FileNotFoundError(
        f"there is no data set {str(name_or_path)!r}: neither {root}/{name_or_path}.h5, nor {root}/{name_or_path}/, "
        f"nor such a path. In {root}/: {', '.join(known) or 'no sets'}. Make one with `python scripts/prepare.py`"
    )


def open_set(path: str | Path, size: Size = 256, num_classes: int = 1) -> PreparedSet:
    """Open a prepared file, or use a folder of images and masks as it is.

    A folder ({train,val,test}/{images,masks}/ or images/ and masks/) is prepared once, into `.mhsvm-SIZE.h5` inside it,
    or into the user's cache folder where it cannot be written to; again only when names, sizes or times of its files
    have changed.

    Args:
        path: A prepared file, which is opened at the size it has, or a folder.
        size: For a folder: the size to prepare.
        num_classes: For a folder: 1 for lesion masks, k >= 2 for class indices.
    Raises:
        FileNotFoundError: There is no such file or folder.
        ValueError: The file is no prepared set, or the folder has problems (all are listed).
    """
    path = Path(path)
    if not path.is_dir():
        return PreparedSet.open(path)
    size = as_height_width(size)
    cache, state = _prepared_path(path, size, num_classes), _folder_state(path)
    if _is_current(cache, state):
        return PreparedSet.open(cache)
    prepare_set(
        "folder",
        [path],
        cache,
        name=path.resolve().name,
        size=size,
        num_classes=num_classes,
        overwrite=True,
        progress=True,
        attributes={_FOLDER_STATE: state},
    )
    return PreparedSet.open(cache)


def open_predicted_set(predictions: PredictionSet, name_or_path: str | Path | None = None) -> PreparedSet:
    """Open the very set that predictions were made on.

    Args:
        predictions: They know its name, its checksum and where it was.
        name_or_path: Where it is now, as for `find_set`; by default where it was, or in data/.
    Raises:
        FileNotFoundError: It is not there.
        ValueError: What is there is another set, or was prepared anew.
    """
    if name_or_path is not None:
        path = find_set(name_or_path)
    else:
        # older predictions do not know where it was
        recorded = [Path(predictions.attributes["set_path"])] if "set_path" in predictions.attributes else []
        places = [*recorded, Path("data") / predictions.set_name]
        found = [place for place in places if place.is_file()]
        if not found:
            raise FileNotFoundError(
                f"the set that {predictions.path} was predicted on is not at {' nor at '.join(map(str, places))}: "
                "say with --d where it is"
            )
        path = found[0]
    prepared = open_set(path, size=predictions.size, num_classes=predictions.num_classes)
    if prepared.checksum != predictions.set_checksum:
        prepared.close()
        raise ValueError(
            f"{path} is not the set that {predictions.path} was predicted on: its checksum is "
            f"{prepared.checksum[:12]}, not {predictions.set_checksum[:12]}. Name that one with --d, or test again"
        )
    return prepared


def _prepared_path(folder: Path, size: tuple[int, int], num_classes: int) -> Path:
    h, w = size
    name = f"mhsvm-{h}{'' if h == w else f'x{w}'}{'' if num_classes == 1 else f'-{num_classes}-classes'}.h5"
    return cache_path(folder, name)


def _is_current(cache: Path, state: str) -> bool:
    if not cache.exists():
        return False
    try:
        with PreparedSet.open(cache) as prepared:
            return prepared.attributes.get(_FOLDER_STATE) == state
    except ValueError:
        # Damaged or of another schema version: the folder is the truth, so the file is simply made again.
        return False


def _folder_state(folder: Path) -> str:
    """sha256 over names, sizes and times of the images and archives in a folder."""

    def describe(file: SourceFile) -> str:
        return f"{file.name}\t{file.num_bytes}\t{file.location.stat().st_mtime_ns}\n"

    # Problems are the business of preparing: one that matters changes the state or stops it there.
    with open_sources([folder], Problems()) as files:
        read = (*EXTENSIONS, SOURCES["folder"].group_table.file_name)
        lines = sorted(describe(file) for file in files if file.name.lower().endswith(read))
    return hashlib.sha256("".join(lines).encode()).hexdigest()
