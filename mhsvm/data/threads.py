"""Threads for work on one image each: decoding, resizing and counting run outside Python's lock and fill the cores."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import torch


def num_cores() -> int:
    """Cores that this process may use, which a container or a scheduler can have limited."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def image_threads() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread a core, in which torch shares nothing out among further threads of its own.

    On maps as small as one image, sharing out costs many times what it gains.
    """
    outside = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(num_cores(), initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        # what is set in a thread also holds for threads that start later
        torch.set_num_threads(outside)
