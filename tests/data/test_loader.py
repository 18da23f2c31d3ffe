"""Batches: every row asked for, once, in order, values as they are stored."""

import pytest
import torch

from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import iterate_batches

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
