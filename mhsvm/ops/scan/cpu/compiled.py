"""Kernels compiled by numba when they are first launched; the next process finds them on disk."""

import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numba import njit, typeof, types
from torch import Tensor

from mhsvm.ops.scan.cpu.compiling_bar import compiling_shown
from mhsvm.ops.scan.cpu.kernel_cache import KernelCache
from mhsvm.ops.scan.cpu.pool import PROCESS, run_units

_EMPTY = np.empty(0, np.float32)


def launch(kernel: Callable[..., None], arguments: Mapping[str, object], *, units: int, work: int) -> None:
    """Compile a kernel if needed, and run it on all units. `units` and `work` are those of `run_units`.

    The types of the arguments must be the same in every launch of a kernel.
    """
    if kernel not in _COMPILED:
        # two threads that start together compile each kernel once
        with PROCESS.lock:
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
    # `run_units` adds the number of units and their counter
    arguments = {**arguments, "units": 0, "taken": np.zeros(1, np.int64)}
    kinds = (typeof(arguments[name]) for name in inspect.signature(kernel).parameters)
    dispatcher: Any = njit(nogil=True)(kernel)
    # as `cache=True` does, with a cache of ours in place of numba's
    dispatcher._cache = KernelCache(kernel, _sources(kernel.__code__.co_filename))
    with compiling_shown(kernel.__name__):
        dispatcher.compile(types.void(*kinds))
    dispatcher.disable_compile()
    return dispatcher


@functools.cache
def _sources(file: str) -> str:
    """A hash of a kernel's file, and of all files with functions that it may call."""
    near = sorted(Path(file).parent.glob("*_cpu_kernels.py"))
    files = [Path(file), *near, *sorted(Path(__file__).parent.glob("*.py"))]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
