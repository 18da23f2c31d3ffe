"""Batches: every row asked for, once, in order, values as they are stored, wherever the set lies."""

import threading

import pytest
import torch

from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import choose_placement, iterate_batches, load_ahead

CPU = torch.device("cpu")


@pytest.fixture
def dataset():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (7, 4, 6, 3), dtype=torch.uint8, generator=generator)
    masks = torch.randint(256, (7, 4, 6), dtype=torch.uint8, generator=generator)
    return Dataset(ids=tuple("abcdefg"), images=images, masks=masks)


@pytest.mark.parametrize(("batch_size", "sizes"), [(1, [1] * 7), (3, [3, 3, 1]), (7, [7]), (8, [7])])
def test_the_last_batch_holds_what_is_left(dataset, batch_size, sizes):
    rows = torch.arange(7).flip(0)
    batches = list(iterate_batches(dataset, rows, batch_size=batch_size, device=CPU))
    assert [len(batch.rows) for batch in batches] == sizes
    assert torch.equal(torch.cat([batch.rows for batch in batches]), rows)
    assert torch.equal(torch.cat([batch.images for batch in batches]), dataset.images.flip(0).permute(0, 3, 1, 2))
    assert torch.equal(torch.cat([batch.masks for batch in batches]), dataset.masks.flip(0))


def test_values_stay_uint8(dataset):
    (batch,) = iterate_batches(dataset, torch.tensor([2, 2]), batch_size=8, device=CPU)
    assert (batch.images.dtype, batch.masks.dtype) == (torch.uint8, torch.uint8)
    assert batch.images.shape == (2, 3, 4, 6)


@pytest.mark.gpu
@pytest.mark.parametrize("on_device", [True, False], ids=["device", "stream"])
def test_a_gpu_gets_the_same_batches(dataset, on_device):
    gpu = torch.device("cuda")
    placed = dataset.to(gpu) if on_device else dataset
    rows = torch.arange(7).flip(0)
    expected = iterate_batches(dataset, rows, batch_size=3, device=CPU)
    for batch, own in zip(iterate_batches(placed, rows, batch_size=3, device=gpu), expected, strict=True):
        assert batch.images.is_cuda
        for found, stored in zip(batch, own, strict=True):
            assert torch.equal(found.cpu(), stored)


def test_parts_loaded_ahead_come_in_order():
    # the first part waits for the second: they are loaded side by side
    second = threading.Event()

    def load(part):
        if part == 0:
            assert second.wait(timeout=20)
        if part == 1:
            second.set()
        return 10 * part

    assert list(load_ahead(load, range(9))) == [10 * part for part in range(9)]


def test_an_error_while_loading_is_raised_where_its_part_is_due():
    def load(part):
        if part == 2:
            raise OSError("gone")
        return part

    loaded = load_ahead(load, range(9))
    assert [next(loaded), next(loaded)] == [0, 1]
    with pytest.raises(OSError, match="gone"):
        next(loaded)


def test_who_stops_half_way_leaves_nothing_loading():
    started = []
    loaded = load_ahead(started.append, range(1000))
    next(loaded)
    loaded.close()
    assert len(started) < 10


def test_a_cpu_has_its_images_in_memory():
    placement = choose_placement(2**30, CPU)
    assert (placement.device, placement.reason) == (CPU, "in memory (1.00 GiB)")


def test_an_unknown_placement_is_refused():
    with pytest.raises(ValueError, match="data.placement is one of auto, device, stream, not 'gpu'"):
        choose_placement(1, CPU, "gpu")


@pytest.mark.parametrize(
    ("num_bytes", "placement", "device", "reason"),
    [
        (2 * 2**30, "auto", "cuda", "on cuda (2.00 GiB of 8.0 GiB free)"),
        (3 * 2**30, "auto", "cpu", "streamed to cuda (3.00 GiB, more than a quarter of the 8.0 GiB free there)"),
        (3 * 2**30, "device", "cuda", "on cuda (3.00 GiB of 8.0 GiB free)"),
        (2**30, "stream", "cpu", "streamed to cuda (1.00 GiB, as set)"),
    ],
)
def test_a_quarter_of_the_free_memory_is_for_images(num_bytes, placement, device, reason, monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (8 * 2**30, 80 * 2**30))
    chosen = choose_placement(num_bytes, torch.device("cuda"), placement)
    assert (chosen.device.type, chosen.reason) == (device, reason)


def test_images_larger_than_the_memory_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2**30, 80 * 2**30))
    with pytest.raises(ValueError, match=r"take 2.00 GiB and 1.00 GiB are free on cuda: set data.placement auto, or"):
        choose_placement(2 * 2**30, torch.device("cuda"), "device")
