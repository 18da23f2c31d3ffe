"""Kernels become machine code when they are first asked for, and are found on disk by the next process."""

import functools
import hashlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from numba import njit, types

logger = logging.getLogger(__name__)


def compiled(kernel: Callable[..., None], argument_types: Sequence[types.Type]) -> Callable[..., None]:
    """Machine code of a kernel, which runs without Python's lock. It is asked for with the same types each time."""
    if kernel not in _COMPILED:
        _COMPILED[kernel] = _compile(kernel, argument_types)
    return _COMPILED[kernel]


_COMPILED: dict[Callable[..., None], Callable[..., None]] = {}


def _compile(kernel: Callable[..., None], argument_types: Sequence[types.Type]) -> Callable[..., None]:
    # numba takes code from its cache if the file of the kernel is unchanged, whatever became of the functions that it
    # calls from other files: the name says which sources it was made from.
    kernel.__qualname__ = f"{kernel.__name__}_{_sources()}"
    signature = types.void(*argument_types)
    try:
        return njit(signature, nogil=True, cache=True)(kernel)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        logger.warning(
            "no folder can be written to keep compiled kernels: they are compiled in every process; "
            "set NUMBA_CACHE_DIR to a folder that can"
        )
        return njit(signature, nogil=True)(kernel)


@functools.cache
def _sources() -> str:
    files = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
