"""Kernels by variant and device: compiled when they are first launched, or many at once before."""

import functools
import logging
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from ctypes import Structure

import torch

from mhsvm.ops.cuda.cubins import Variant, cubin, is_kept
from mhsvm.ops.cuda.driver import Function
from mhsvm.ops.cuda.nvrtc import NvrtcError

log = logging.getLogger(__name__)

_MESSAGE = "compiling for this GPU (the first use only)"
# The longest variant takes a third of the time of all variants of a network.
_MOST_THREADS = 16

_functions: dict[tuple[Variant, int], Function] = {}
_recording = threading.local()


def launch(variant: Variant, blocks: int, parameters: Structure, device: torch.device) -> None:
    """Launch a kernel on torch's current stream of a device; within `recorded`, only note it.

    Raises:
        NvrtcError: It cannot be compiled.
        DriverError: The driver does not take it.
    """
    noted = getattr(_recording, "variants", None)
    index = device.index
    if noted is not None:
        noted.setdefault((variant, index))
        return
    function = _functions.get((variant, index)) or _load(variant, index)
    # equals `torch.cuda.current_stream(device).cuda_stream`, and needs no object of Python
    stream = torch._C._cuda_getCurrentRawStream(index)
    if torch.cuda.current_device() == index:
        function.launch(blocks, parameters, stream)
    else:
        with torch.cuda.device(index):
            function.launch(blocks, parameters, stream)


@contextmanager
def recorded() -> Iterator[dict[tuple[Variant, int], None]]:
    """Note the kernels that this thread would launch, and launch none; the keys are (variant, device)."""
    before = getattr(_recording, "variants", None)
    variants: dict[tuple[Variant, int], None] = {}
    _recording.variants = variants
    try:
        yield variants
    finally:
        _recording.variants = before


def compile_kernels(wanted: Iterable[tuple[Variant, int]], *, num_threads: int) -> int:
    """Compile kernels that are not in the cache, side by side; return their number.

    A kernel that fails is logged, and compiled again, with an error, when it is launched.
    """
    missing = list(dict.fromkeys((variant, _architecture(device)) for variant, device in wanted))
    missing = [(variant, architecture) for variant, architecture in missing if not is_kept(variant, architecture)]
    if not missing:
        return 0
    start = time.monotonic()
    with ThreadPoolExecutor(min(len(missing), num_threads, _MOST_THREADS)) as threads, _shown(len(missing)) as advance:
        for future in as_completed([threads.submit(cubin, *kernel) for kernel in missing]):
            error = future.exception()
            if isinstance(error, NvrtcError):
                log.warning("a kernel that fails to compile ahead is left to its launch: %s", error)
            elif error is not None:
                raise error
            advance()
    log.info("compiled %d kernels that were not in the cache: %.1f s", len(missing), time.monotonic() - start)
    return len(missing)


def _load(variant: Variant, device: int) -> Function:
    architecture = _architecture(device)
    if not is_kept(variant, architecture):
        _say_once()
    function = Function(
        cubin(variant, architecture),
        variant.function,
        device=device,
        threads=variant.threads,
        shared_bytes=variant.shared_bytes,
    )
    # two threads may have loaded it: one is kept
    return _functions.setdefault((variant, device), function)


@functools.cache
def _architecture(device: int) -> int:
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@contextmanager
def _shown(num: int):
    """Show a bar on a terminal; elsewhere one line a process."""
    if not sys.stderr.isatty():
        _say_once()
        yield lambda: None
        return
    # imported here, because no bar is needed if the kernels are on disk
    from tqdm import tqdm

    with tqdm(desc=_MESSAGE, total=num, unit=" kernels", leave=False, dynamic_ncols=True, disable=None) as bar:
        yield bar.update


@functools.cache
def _say_once() -> None:
    print(f"{_MESSAGE}: this takes some seconds", file=sys.stderr, flush=True)
