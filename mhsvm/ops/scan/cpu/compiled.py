"""Kernels compiled by numba when they are first launched; the next process finds them on disk."""

import functools
import hashlib
import inspect
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from numba import njit, typeof, types
from torch import Tensor

from mhsvm.ops.scan.cpu.pool import run_units

logger = logging.getLogger(__name__)

_EMPTY = np.empty(0, np.float32)


def launch(kernel: Callable[..., None], arguments: Mapping[str, object], *, units: int, work: int) -> None:
    """Compile a kernel if needed, and run it on all units. `units` and `work` are those of `run_units`.

    The types of the arguments must be the same in every launch of a kernel.
    """
    if kernel not in _COMPILED:
        _COMPILED[kernel] = _compile(kernel, arguments)
    run_units(_COMPILED[kernel], arguments, units=units, work=work)


def flat(x: Tensor | None) -> np.ndarray:
    """All memory from the first element of x to its last, as an argument of a kernel."""
    if x is None or x.numel() == 0:
        return _EMPTY
    size = 1 + sum((size - 1) * stride for size, stride in zip(x.shape, x.stride(), strict=True))
    return torch.as_strided(x, (size,), (1,)).numpy()


_COMPILED: dict[Callable[..., None], Callable[..., None]] = {}


def _compile(kernel: Callable[..., None], arguments: Mapping[str, object]) -> Callable[..., None]:
    """Machine code of a kernel, which runs without Python's lock."""
    # numba reuses cached code if the file of the kernel is unchanged, even if functions in other files that the kernel
    # calls have changed. So the name contains a hash of these files.
    kernel.__qualname__ = f"{kernel.__name__}_{_sources()}"
    # `run_units` adds the number of units and their counter
    arguments = {**arguments, "units": 0, "taken": np.zeros(1, np.int64)}
    kinds = (typeof(arguments[name]) for name in inspect.signature(kernel).parameters)
    signature = types.void(*kinds)
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
