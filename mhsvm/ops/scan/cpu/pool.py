"""Threads that run the kernels: one pool a process, started when it is first needed."""

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

# In state updates of the scan, 1 to 2 ns each: waking a thread costs about as much as 50,000 of them.
_MIN_PARALLEL_WORK, _MIN_THREAD_WORK = 2**18, 2**17


class _Process:
    """Locks and threads of this process, which do not survive a fork.

    Attributes:
        lock: Held while a kernel is compiled or the threads are started.
    """

    def __init__(self) -> None:
        self._renew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._after_fork)

    def _renew(self) -> None:
        self.lock = threading.RLock()
        self._executor: ThreadPoolExecutor | None = None

    def _after_fork(self) -> None:
        self._renew()
        # An operation of torch would wait forever for the parent's threads of OpenMP.
        torch.set_num_threads(1)

    def executor(self) -> ThreadPoolExecutor:
        with self.lock:
            if self._executor is None:
                # It starts a thread only when none of its threads is idle.
                self._executor = ThreadPoolExecutor(os.cpu_count(), thread_name_prefix="mhsvm-scan")
            return self._executor


PROCESS = _Process()


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
    others = [PROCESS.executor().submit(kernel, **arguments) for _ in range(threads - 1)]
    kernel(**arguments)
    for other in others:
        if not other.cancel():
            other.result()
