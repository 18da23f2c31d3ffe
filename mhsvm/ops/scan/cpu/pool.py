"""Threads for the kernels: one pool a process, made when it is first needed."""

import itertools
import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

# Several shares a thread even out what the threads lose to others.
_SHARES_PER_THREAD = 4
# In state updates of the scan, 1 to 2 ns each: waking a thread costs about as much as 50,000 of them.
_LEAST_WORK_TO_SHARE, _LEAST_WORK_OF_A_SHARE = 2**19, 2**17


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


def run_units(kernel: Callable[..., None], arguments: Sequence[object], *, units: int, work: int) -> None:
    """Run a kernel on units 0..units-1, on as many threads as torch would take.

    Args:
        kernel: Takes `arguments` and then the first unit and the one behind the last; holds no Python lock.
        units: Independent parts of the work.
        work: State updates of all units together: little work is not shared.
    """
    threads = torch.get_num_threads()
    shares = min(units, threads * _SHARES_PER_THREAD, work // _LEAST_WORK_OF_A_SHARE)
    if threads == 1 or work < _LEAST_WORK_TO_SHARE:
        shares = 1
    bounds = [units * share // shares for share in range(shares + 1)]
    waiting = iter(list(itertools.pairwise(bounds)))

    def run_shares() -> None:
        # next() on a list's iterator is one step under Python's lock: each share is taken once.
        for first, last in waiting:
            kernel(*arguments, first, last)

    helpers = min(threads, shares) - 1
    futures = [_POOL.executor().submit(run_shares) for _ in range(helpers)]
    run_shares()
    for future in futures:
        future.result()
