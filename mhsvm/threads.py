"""Threads that process one image each: decoding, resizing and counting release Python's lock and use all cores."""

import math
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import cache
from typing import TypeVar

from mhsvm.system import num_cores

# Each thread can have a native image in memory: about 0.5 GB for 30 megapixels.
_MOST_IMAGES = 8

# Threads that run a network at the same time, and images that each takes at once.
_MOST_NETWORKS, _PART = 4, 4

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def image_threads(num_threads: int | None = None) -> Iterator[ThreadPoolExecutor]:
    """Pool with one thread per core, at most eight, in which torch uses a single thread for each operation.

    On a map of one image, torch's own threads cost many times the time that they save.

    Args:
        num_threads: A number of threads instead.
    """
    # loaded here, because preparing a set uses this file and starts faster without torch
    import torch

    outside = torch.get_num_threads()
    try:
        num_threads = num_threads or min(num_cores(), _MOST_IMAGES)
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        # a setting made in a thread also holds for threads that start later
        torch.set_num_threads(outside)


@cache
def compute_alone_after_fork() -> None:
    """From now on, let a forked child of this process compute with one thread.

    An operation of torch on several would wait forever for the parent's threads of OpenMP.
    """
    import torch

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=lambda: torch.set_num_threads(1))


def even_parts(items: Sequence[Item], *, num_threads: int) -> list[Sequence[Item]]:
    """The parts of a batch for threads that each run a network; one part if the network itself uses them better.

    A network takes Python's lock between its operations, so that more threads than a few, or parts of one image, wait
    for each other. The parts depend on the number of threads alone, and so do the bits of the results.
    """
    if num_threads == 1 or num_threads > _MOST_NETWORKS:
        return [items]
    number = num_threads * math.ceil(len(items) / (num_threads * _PART))
    number = max(1, min(number, len(items) // 2))
    bounds = [len(items) * part // number for part in range(number + 1)]
    return [items[first:last] for first, last in zip(bounds, bounds[1:], strict=False)]


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int) -> Iterator[Result]:
    """Yield `function(item)` for each item in order, computed by threads that work a few items ahead.

    Memory does not grow with the number of items. An exception of the function is raised in place of the result.
    """
    pending: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(num_workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > 2 * num_workers:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
