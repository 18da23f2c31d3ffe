"""Reports of steps: in order, none lost, however they arrive."""

import pytest
import torch

from mhsvm.training.step_log import READ_EVERY, StepLog


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("num", [1, READ_EVERY, 3 * READ_EVERY + 1])
def test_every_step_is_read_once_and_in_order(num, device):
    log, records = StepLog(num, torch.device(device)), []
    for i in range(num):
        # two batches a step; the last step may have one
        log.add(torch.tensor([i, 0.0], device=device), torch.tensor([i, i]), last=i % 2 == 1 or i == num - 1)
        records += log.read(wait=False)
    records += log.read(wait=True)
    assert [loss for record in records for loss in record.losses] == list(range(num))
    assert [len(record.losses) for record in records] == [2] * (num // 2) + [1] * (num % 2)
    assert records[0].loss == sum(range(min(num, 2)))
    assert records[0].num_images == 2 * min(num, 2)
    assert not any(record.found_inf for record in records)
    assert log.read(wait=True) == []


def test_on_a_cpu_reports_are_there_at_once():
    log = StepLog(2, torch.device("cpu"))
    log.add(torch.tensor([1.0, 0.0]), torch.tensor([4]), last=True)
    (record,) = log.read(wait=False)
    assert record.losses == (1.0,)
    log.add(torch.tensor([2.0, 1.0]), torch.tensor([5]), last=True)
    (record,) = log.read(wait=False)
    assert record.found_inf


@pytest.mark.gpu
def test_a_gpu_is_read_every_so_many_batches():
    log = StepLog(READ_EVERY, torch.device("cuda"))
    for i in range(READ_EVERY):
        assert log.read(wait=False) == []
        log.add(torch.tensor([i, 0.0], device="cuda"), torch.tensor([i]), last=True)
    records = log.read(wait=False)
    torch.cuda.synchronize()
    assert len(records + log.read(wait=False)) == READ_EVERY
