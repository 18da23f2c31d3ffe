"""Threads of OpenMP, which torch uses: how many, and how long they spin before they sleep.

The library reads both once, when torch loads it. GNU's library (in torch's wheels for Linux) spins for milliseconds by
default, also while another process waits for the core, and between the short operations of a small network it never
sleeps. Some microseconds bridge most of these gaps. It respects `taskset`, but not the quota of a container.
"""

import os
import sys
from collections.abc import MutableMapping

from mhsvm.cgroup import cpu_quota

# turns of the loop of GNU's library; milliseconds of LLVM's and Intel's
WAITING = {"GOMP_SPINCOUNT": "1000", "KMP_BLOCKTIME": "1"}
# each of these sets how threads wait
_CHOICES = ("OMP_WAIT_POLICY", "KMP_LIBRARY", *WAITING)

_COUNT = "OMP_NUM_THREADS"
_chosen_here: set[str] = set()


def limit_threads(environment: MutableMapping[str, str] | None = None, *, quota: int | None = None) -> None:
    """Choose a short wait, and no more threads than a container's quota, where the environment does not choose.

    Nothing changes once torch is loaded.

    Args:
        environment: Where to set it; by default that of this process, which its children inherit.
        quota: Processors that a container may use; by default as read from its control groups.
    """
    if "torch" in sys.modules:
        return
    environment = os.environ if environment is None else environment
    chosen = {} if any(name in environment for name in _CHOICES) else dict(WAITING)
    quota = cpu_quota() if quota is None else quota
    if _COUNT not in environment and quota is not None and quota < (os.cpu_count() or 1):
        chosen[_COUNT] = str(min(quota, _affinity()))
    environment.update(chosen)
    _chosen_here.update(chosen)


def set_by_user(name: str) -> str | None:
    """The value of an environment variable, unless `limit_threads` chose it in this process; None if it is not set."""
    return None if name in _chosen_here else os.environ.get(name)


def _affinity() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
