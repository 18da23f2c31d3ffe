"""Threads that run the kernels: one pool a process, started when it is first needed."""

import itertools
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import torch

# Several chunks of units a thread even out delays of single threads.
_CHUNKS_PER_THREAD = 4
# In state updates of the scan, 1 to 2 ns each: waking a thread costs about as much as 50,000 of them.
_MIN_PARALLEL_WORK, _MIN_CHUNK_WORK = 2**19, 2**17


class _Pool:
    """The executor of this process. Its threads do not survive a fork, and a lock may be held in one."""

    def __init__(self) -> None:
        self.renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.renew)

    def renew(self) -> None:
        self._lock = threading.Lock()
        self._executor: ThreadPoolExecutor | None = None

    def executor(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._executor is None:
                # It starts a thread only when none of its threads is idle.
                self._executor = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mhsvm-scan")
            return self._executor


_POOL = _Pool()


def run_units(kernel: Callable[..., None], arguments: Mapping[str, object], *, units: int, work: int) -> None:
    """Run a kernel on units 0..units-1, on the number of threads that torch uses.

    Args:
        kernel: Takes `arguments`, and the units from `first` to `last` - 1; holds no Python lock.
        arguments: Arguments by name.
        units: Number of independent units of work.
        work: State updates of all units together: little work stays in the calling thread.
    """
    threads = torch.get_num_threads()
    chunks = min(units, threads * _CHUNKS_PER_THREAD, work // _MIN_CHUNK_WORK)
    if threads == 1 or work < _MIN_PARALLEL_WORK:
        chunks = 1
    bounds = [units * chunk // chunks for chunk in range(chunks + 1)]
    waiting = iter(list(itertools.pairwise(bounds)))

    def run_chunks() -> None:
        # next() on a list's iterator is one step under Python's lock: each chunk is taken once.
        for first, last in waiting:
            kernel(**arguments, first=first, last=last)

    helpers = min(threads, chunks) - 1
    futures = [_POOL.executor().submit(run_chunks) for _ in range(helpers)]
    run_chunks()
    for future in futures:
        future.result()
