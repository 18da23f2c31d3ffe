"""Machine code of kernels: compiled once for each architecture, and kept in the user's cache."""

import functools
import hashlib
import logging
import threading
from dataclasses import dataclass
from pathlib import Path

from mhsvm.files import user_cache
from mhsvm.ops.cuda.nvrtc import load_nvrtc
from mhsvm.ops.kernel_files import read_kernel_file, write_kernel_file
from mhsvm.ownership import make_own_folder
from mhsvm.text_file import read_text

log = logging.getLogger(__name__)

_OPTIONS = ("-std=c++17", "-default-device")


@dataclass(frozen=True, eq=False)
class Variant:
    """A kernel with its compile-time constants; equal only to itself, so that it is found quickly.

    Made by `the_variant`.

    Attributes:
        source: File with the kernel, `NAME.cu`; it may include the files `*.cuh` of its folder.
        function: Name of the kernel.
        constants: (name, value) of each macro.
        threads: Threads of a block.
        shared_bytes: Dynamic shared memory of a block.
    """

    source: Path
    function: str
    constants: tuple[tuple[str, int | str], ...]
    threads: int
    shared_bytes: int


@functools.cache
def the_variant(
    source: Path, function: str, constants: tuple[tuple[str, int | str], ...], threads: int, shared_bytes: int
) -> Variant:
    """The one variant with these attributes: two would be compiled twice, into one file."""
    return Variant(source, function, constants, threads, shared_bytes)


def cubin(variant: Variant, architecture: int) -> bytes:
    """Machine code of a variant, from the cache or from the compiler.

    Raises:
        NvrtcError: It cannot be compiled.
    """
    with _lock_of(variant, architecture):
        path = _path(variant, architecture)
        code = None if path is None else read_kernel_file(path)
        if code is None:
            source, headers = _texts(variant.source)
            code = load_nvrtc().compile(source, variant.source.name, _options(variant, architecture), headers)
            if path is not None:
                write_kernel_file(path, code)
        return code


def is_kept(variant: Variant, architecture: int) -> bool:
    """Whether the cache has this variant."""
    path = _path(variant, architecture)
    return path is not None and read_kernel_file(path) is not None


def _options(variant: Variant, architecture: int) -> list[str]:
    constants = (*variant.constants, ("SHARED_BYTES", variant.shared_bytes))
    return [f"-arch=sm_{architecture}", *_OPTIONS, *(f"-D{name}={value}" for name, value in constants)]


@functools.cache
def _texts(source: Path) -> tuple[str, dict[str, str]]:
    return read_text(source), {path.name: read_text(path) for path in sorted(source.parent.glob("*.cuh"))}


def _path(variant: Variant, architecture: int) -> Path | None:
    folder = _folder()
    if folder is None:
        return None
    key = repr((_texts(variant.source), _options(variant, architecture), load_nvrtc().version))
    return folder / f"{variant.function}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.cubin"


@functools.cache
def _folder() -> Path | None:
    """The folder of compiled kernels, in which no other user can leave one; None, with a warning, without one."""
    folder = user_cache() / "cuda"
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if make_own_folder(folder):
            return folder
        reason = "others may write to it, or it is a link"
    except OSError as error:
        reason = str(error)
    log.warning("%s is not used for compiled kernels, which every process compiles again: %s", folder, reason)
    return None


_locks: dict[tuple[Variant, int], threading.Lock] = {}
_lock_of_locks = threading.Lock()


def _lock_of(variant: Variant, architecture: int) -> threading.Lock:
    with _lock_of_locks:
        return _locks.setdefault((variant, architecture), threading.Lock())
