"""Open a set by its name, the path of a prepared file, or the path of a folder with images and masks."""

import hashlib
import os
import sys
from pathlib import Path

from tqdm import tqdm

from mhsvm.files import StrPath, cache_path
from mhsvm.nearest import did_you_mean
from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.formats import EXTENSIONS
from mhsvm.prepare.out_path import check_out
from mhsvm.prepare.pairs import find_pairs
from mhsvm.prepare.pipeline import MERGED_MASKS, PAIRS, RATERS, pairs_digest, prepare_set
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.resize import Size, as_height_width
from mhsvm.prepare.sources import SOURCES
from mhsvm.prepare.walk import open_sources
from mhsvm.store import PredictionSet, PreparedSet
from mhsvm.text_file import encode

# Side length in pixels of a folder that is used directly, if none is named.
DEFAULT_SIZE = 256
# Attribute of a set prepared from a folder, used to detect changes of the folder.
_FOLDER_STATE = "folder_state"
# Changed when files are decoded to other pixels than before, so that folders are prepared again.
_DECODING = "decoding 2\n"


def find_set(name_or_path: StrPath, root: StrPath = "data") -> Path:
    """Find the file or folder of a data set.

    A path with a folder part, such as sets/mine or ./mine, is taken literally if it exists; next comes sets/mine.h5,
    and then both in `root`. A bare NAME is root/NAME.h5, root/NAME/, or else NAME in the working folder.

    Args:
        name_or_path: A name, or the path of a prepared file or a folder.
        root: Folder with prepared sets.
    Raises:
        FileNotFoundError: None of these paths exists; the sets in `root` are listed.
        ValueError: root/NAME.h5 and root/NAME/ both exist, and the file was not prepared from the images and masks
            that the folder holds now.
    """
    root, literal = Path(root), Path(name_or_path)
    in_root = [root / f"{name_or_path}.h5", root / name_or_path]
    named = len(literal.parts) > 1 or any(mark and mark in str(name_or_path) for mark in (os.sep, os.altsep))
    candidates = [literal, Path(f"{literal}.h5"), *in_root] if named else [*in_root, literal]
    found = [path for path in candidates if path.exists()]
    if not named and found[:2] == in_root:
        _check_same_set(*in_root)
    if found:
        return found[0]
    entries = sorted(root.iterdir()) if root.is_dir() else []
    known = [path.name for path in entries if path.is_dir() or path.suffix == ".h5"]
    missing = (
        f"no such path, and no {root}/{name_or_path}"
        if named
        else f"neither {root}/{name_or_path}.h5, nor {root}/{name_or_path}/, nor such a path"
    )
    hint = did_you_mean(str(name_or_path), [name.removesuffix(".h5") for name in known])
    raise FileNotFoundError(
        f"there is no data set {str(name_or_path)!r}: {missing}. "
        f"In {root}/: {', '.join(known) or 'no sets'}{hint or '.'} Make one with `mhsvm prepare`"
    )


def require_size(prepared: PreparedSet, size: Size | None, *, setting: str) -> None:
    """Check that a set has the size that the user has named; None takes any.

    Args:
        prepared: The set.
        size: The named size.
        setting: Its setting or argument, for the message.
    Raises:
        ValueError: The set has another size.
    """
    if size is not None and prepared.size != as_height_width(size):
        shown = "{} x {}".format
        raise ValueError(
            f"{setting} is {shown(*as_height_width(size))} and {prepared.path} holds images of {shown(*prepared.size)} "
            f"(height x width): leave {setting} out, or prepare the set at that size"
        )


def open_set(path: str | Path, size: Size = DEFAULT_SIZE, num_classes: int = 1) -> PreparedSet:
    """Open a prepared file, or prepare and open a folder of images and masks.

    A folder ({train,val,test}/{images,masks}/ or images/ and masks/) is prepared once, into `.mhsvm-SIZE.h5` in the
    folder, or into the user's cache if the folder is not writable. It is prepared again if names, sizes or times of its
    files change.

    Args:
        path: A prepared file, which keeps its size (see `require_size`), or a folder.
        size: Size for a folder.
        num_classes: Classes for a folder: 1 for lesion masks, k >= 2 for class indices.
    Raises:
        FileNotFoundError: The file or folder does not exist.
        ValueError: The file is not a prepared set, or the folder has problems (all are listed).
    """
    path = Path(path)
    if not path.is_dir():
        return PreparedSet.open(path)
    size = as_height_width(size)
    cache, state = _prepared_path(path, size, num_classes), _folder_state(path)
    if _is_current(cache, state):
        return PreparedSet.open(cache)
    _check_writable(cache, path)
    summary = prepare_set(
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
    # beside the progress bar, since a set that is incomplete must not be trained on in silence
    others = [f"{count} images and masks of {origin}" for origin, count in summary.left_out.items()]
    lines = [f"left out: {line}" for line in (*others, *summary.skipped)]
    for line in (*lines, *(f"note: {fact}" for fact in summary.facts)):
        tqdm.write(f"{path}: {line}", file=sys.stderr)
    return PreparedSet.open(cache)


def open_predicted_set(predictions: PredictionSet, name_or_path: str | Path | None = None) -> PreparedSet:
    """Open the set on which predictions were made.

    Args:
        predictions: Predictions with the name, checksum and recorded path of the set.
        name_or_path: Present name or path, see `find_set`; default: the recorded path, or data/.
    Raises:
        FileNotFoundError: The set does not exist there.
        ValueError: The set has another checksum, because it differs or was prepared again.
    """
    if name_or_path is not None:
        path = find_set(name_or_path)
    else:
        # older predictions have no recorded path
        recorded = [Path(str(predictions.attributes["set_path"]))] if "set_path" in predictions.attributes else []
        places = [*recorded, Path("data") / predictions.set_name]
        found = [place for place in places if place.is_file()]
        if not found:
            raise FileNotFoundError(
                f"the set that {predictions.path} was predicted on is not at {' nor at '.join(map(str, places))}: "
                "give its path with `data`"
            )
        path = found[0]
    prepared = open_set(path, size=predictions.size, num_classes=predictions.num_classes)
    if prepared.checksum != predictions.set_checksum:
        prepared.close()
        raise ValueError(
            f"{path} is not the set that {predictions.path} was predicted on: its checksum is "
            f"{prepared.checksum[:12]}, not {predictions.set_checksum[:12]}. Name that one with `data`, or test again"
        )
    return prepared


def _check_same_set(file: Path, folder: Path) -> None:
    """Check that a prepared file holds the images and masks of the folder beside it, unless that is no set."""
    with open_sources([folder] if folder.is_dir() else [], Problems()) as files:
        found = {name: find_pairs(files, source, Problems()) for name, source in SOURCES.items()}
        if not any(found.values()) and not find_pairs(files, SOURCES["folder"], Problems(), raters=()):
            return
        with PreparedSet.open(file) as prepared:
            raters, merged = prepared.attributes.get(RATERS), MERGED_MASKS in prepared.attributes
            if (raters is not None or merged) and prepared.source in found:
                names = None if raters is None else str(raters).split("\n") if raters else []
                found[prepared.source] = find_pairs(
                    files, SOURCES[prepared.source], Problems(), raters=names, merge_masks=merged
                )
            pairs = found.get(prepared.source) or max(found.values(), key=len)
            recorded = prepared.attributes.get(PAIRS)
            if recorded == pairs_digest(pairs) if recorded else set(prepared.ids) == {pair.id for pair in pairs}:
                return
            count = len(prepared)
    raise ValueError(
        f"{file} and {folder}{os.sep} are different sets of one name: the file holds {count} images and was not "
        f"prepared from the {len(pairs)} that the folder holds now. Prepare it again, or name one by its path, "
        f"{file} or {folder}{os.sep}"
    )


def _prepared_path(folder: Path, size: tuple[int, int], num_classes: int) -> Path:
    h, w = size
    name = f"mhsvm-{h}{'' if h == w else f'x{w}'}{'' if num_classes == 1 else f'-{num_classes}-classes'}.h5"
    return cache_path(folder, name)


def _check_writable(cache: Path, folder: Path) -> None:
    try:
        check_out(cache, "folder", overwrite=True)
    except PermissionError as error:
        raise PermissionError(
            f"{folder} is prepared at its first use, and neither it nor {cache.parent} can be written to: prepare it "
            "into a file with `mhsvm prepare`, or set XDG_CACHE_HOME to a folder that can be written"
        ) from error


def _is_current(cache: Path, state: str) -> bool:
    # unlike Path.exists, False in a folder that must not be read
    if not os.path.exists(cache):
        return False
    try:
        with PreparedSet.open(cache) as prepared:
            return prepared.attributes.get(_FOLDER_STATE) == state
    except ValueError:
        # The file is damaged or has another schema version, and is prepared again from the folder.
        return False


def _folder_state(folder: Path) -> str:
    """Compute a sha256 over names, sizes and times of the images and archives in a folder."""

    def describe(file: SourceFile) -> str:
        # a broken link has no time; the preparation reports it
        changed = file.location.stat().st_mtime_ns if file.location.exists() else 0
        return f"{file.name}\t{file.num_bytes}\t{changed}\n"

    # Problems are ignored here; the preparation reports them.
    with open_sources([folder], Problems()) as files:
        read = (*EXTENSIONS, *SOURCES["folder"].group_table.file_names)
        lines = sorted(describe(file) for file in files if file.name.lower().endswith(read))
    return hashlib.sha256(encode("".join([_DECODING, *lines]))).hexdigest()
