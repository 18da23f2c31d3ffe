"""Compiled kernels on disk, read only from files that no other user can have written.

numba's own cache unpickles any file that it finds, which runs code of whoever wrote it, and a truncated file stops
every later process. Here each kernel has one file, a checksum and the same pickle, in a folder of this user's own. That
is below the folder that numba would take: NUMBA_CACHE_DIR, `__pycache__` of the sources, or the user's cache folder.
"""

import functools
import hashlib
import logging
import os
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import llvmlite
import numba
from numba.core import caching, compiler, serialize

from mhsvm.ops.kernel_files import read_kernel_file, write_kernel_file
from mhsvm.ownership import make_own_folder

log = logging.getLogger(__name__)

# numba 0.61 made these names public
_LOCATORS = tuple(
    getattr(caching, name, None) or getattr(caching, f"_{name}")
    for name in ("UserProvidedCacheLocator", "InTreeCacheLocator", "UserWideCacheLocator")
)


class KernelCache(caching.NullCache):
    """The cache of one kernel, with the methods that a dispatcher of numba calls.

    Args:
        kernel: The function.
        sources: Stands for the text of all functions that the kernel calls.
    """

    def __init__(self, kernel: Callable[..., None], sources: str) -> None:
        self._name, self._sources, self._file = kernel.__name__, sources, kernel.__code__.co_filename
        self._folder = _private_folder(kernel, self._file)

    @property
    def cache_path(self) -> str | None:
        return None if self._folder is None else str(self._folder)

    def load_overload(self, signature, target_context):
        """The compiled kernel, or None if its file is missing, damaged, or not this user's own."""
        target_context.refresh()
        if self._folder is None:
            return None
        payload = read_kernel_file(self._path(signature, target_context.codegen()))
        if payload is None:
            return None
        return compiler.CompileResult._rebuild(target_context, *pickle.loads(payload))

    def save_overload(self, signature, compiled) -> None:
        """Write the compiled kernel; without it, the next process compiles again."""
        if self._folder is None:
            return
        payload = serialize.dumps(compiled._reduce())
        write_kernel_file(self._path(signature, compiled.codegen), payload)

    def _path(self, signature, codegen) -> Path:
        # machine code depends on the processor, and its pickle on numba and Python
        versions = (numba.__version__, llvmlite.__version__, sys.implementation.cache_tag)
        key = repr((signature, codegen.magic_tuple(), versions, self._sources))
        assert self._folder is not None
        return self._folder / f"{self._name}-{hashlib.sha256(key.encode()).hexdigest()[:24]}.kernel"


def _private_folder(kernel: Callable[..., None], file: str) -> Path | None:
    """The first folder that can be written and that only this user can write to; None, with a warning, without one."""
    for parent in _parents(kernel, file):
        folder = parent / f"mhsvm-{os.getuid() if hasattr(os, 'getuid') else 'kernels'}"
        try:
            if make_own_folder(folder):
                return folder
        except OSError:
            continue
        _warn_once(f"{folder} is not used for compiled kernels: others may write to it")
    _warn_once(
        "no folder can be written to keep compiled kernels: they are compiled in every process; "
        "set NUMBA_CACHE_DIR to a folder that can, and that is yours alone"
    )
    return None


def _parents(kernel: Callable[..., None], file: str) -> Iterator[Path]:
    for locator in _LOCATORS:
        # None if its folder cannot be written
        found = locator.from_function(kernel, file)
        if found is not None:
            yield Path(found.get_cache_path())


@functools.cache
def _warn_once(message: str) -> None:
    log.warning("%s", message)
