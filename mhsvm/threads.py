"""Threads for work on one image each: decoding, resizing and counting run outside Python's lock and fill the cores."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

from mhsvm.system import num_cores

# More would hold more native images at once than memory may take: some 0.5 GB for one of 30 megapixels.
_MOST_IMAGES = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


@contextmanager
def image_threads() -> Iterator[ThreadPoolExecutor]:
    """A pool of one thread a core, eight at most, in which torch shares nothing out among further threads of its own.

    On maps as small as one image, sharing out costs many times what it gains.
    """
    # preparing a set uses this file and is quick to start because it loads no torch
    import torch

    outside = torch.get_num_threads()
    try:
        num_threads = min(num_cores(), _MOST_IMAGES)
        with ThreadPoolExecutor(num_threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            yield pool
    finally:
        # what is set in a thread also holds for threads that start later
        torch.set_num_threads(outside)


def in_order(function: Callable[[Item], Result], items: Iterable[Item], *, num_workers: int) -> Iterator[Result]:
    """Yield `function(item)` of each item in order, from threads that are a few items ahead.

    Memory does not grow with the number of items. What the function raises, is raised in its item's place.
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
