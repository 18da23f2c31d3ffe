"""Threads for images, and what they leave behind."""

import threading
import time

import pytest
import torch

from mhsvm.system import num_cores
from mhsvm.threads import even_parts, image_threads, in_order


def test_one_thread_a_core_and_none_inside_torch():
    outside = torch.get_num_threads()
    # waits until all are there
    num_threads = min(num_cores(), 8)
    barrier = threading.Barrier(num_threads, timeout=20)

    def look(_):
        barrier.wait()
        return torch.get_num_threads(), threading.get_ident()

    with image_threads() as pool:
        found = list(pool.map(look, range(num_threads)))
    assert {inside for inside, _ in found} == {1}
    assert len({ident for _, ident in found}) == num_threads
    assert torch.get_num_threads() == outside


def test_torch_has_its_threads_back_after_an_error():
    outside = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        with pytest.raises(ZeroDivisionError), image_threads() as pool:
            list(pool.map(lambda n: 1 // n, [0]))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(outside)


def test_results_come_in_order_and_only_a_few_items_ahead():
    taken = []

    def items():
        for number in range(40):
            taken.append(number)
            yield number

    def slow_at_first(number):
        time.sleep(0.02 if number < 2 else 0)
        return number * number

    found = []
    for result in in_order(slow_at_first, items(), num_workers=3):
        assert len(taken) - len(found) <= 2 * 3 + 1
        found.append(result)
    assert found == [number * number for number in range(40)]


def test_an_error_comes_in_its_items_place():
    results = in_order(lambda number: 6 // number, [3, 2, 0, 1], num_workers=2)
    assert [next(results), next(results)] == [2, 3]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize(
    ("items", "num_threads", "sizes"),
    [
        (8, 2, [4, 4]),
        (9, 2, [2, 2, 2, 3]),
        (32, 2, [4] * 8),
        (5, 2, [2, 3]),
        (4, 4, [2, 2]),
        (12, 4, [3, 3, 3, 3]),
        (3, 2, [3]),
        (1, 2, [1]),
        (0, 2, [0]),
        (8, 1, [8]),
        (8, 16, [8]),
    ],
)
def test_parts_of_a_batch(items, num_threads, sizes):
    batch = list(range(items))
    parts = even_parts(batch, num_threads=num_threads)
    assert [len(part) for part in parts] == sizes
    assert [item for part in parts for item in part] == batch
