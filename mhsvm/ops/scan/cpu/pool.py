"""Threads that run the kernels: one pool a process, started when it is first needed."""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

# In state updates of the scan, 1 to 2 ns each: waking a thread costs about as much as 50,000 of them.
_MIN_PARALLEL_WORK, _MIN_THREAD_WORK = 2**18, 2**17


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

    Threads take units one by one, so that a thread that another process keeps from its core holds up at most one unit,
    and a thread that has not started when all units are taken is not waited for.

    Args:
        kernel: Takes `arguments`, the number of `units` and a counter `taken`, int64 (1,): it runs the unit whose
            number the counter has, adds one, and goes on until all units are taken. It holds no Python lock.
        arguments: Arguments by name.
        units: Number of independent units of work.
        work: State updates of all units together: little work stays in the calling thread.
    """
    threads = min(torch.get_num_threads(), units, work // _MIN_THREAD_WORK) if work >= _MIN_PARALLEL_WORK else 1
    arguments = {**arguments, "units": units, "taken": np.zeros(1, np.int64)}
    others = [_POOL.executor().submit(kernel, **arguments) for _ in range(threads - 1)]
    kernel(**arguments)
    for other in others:
        if not other.cancel():
            other.result()
