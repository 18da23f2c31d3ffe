"""The split of scans. Shapes are (b, d, l, groups) with 16 states; numbers are steps of a chunk, chunks, and splits."""

import pytest
import torch

from mhsvm.ops.scan.inputs import Inputs
from mhsvm.ops.scan.triton.plan import plan_backward, plan_forward


def make_inputs(b, d, length, groups, dtype=torch.float32):
    u, A = torch.empty(b, length, groups, d // groups, device="meta", dtype=dtype), torch.empty(groups, 16, d // groups)
    return Inputs(u, u, A, u, u, None, None, None, None, softplus=True)


# All but the last are those of MHS-VM and VM-UNet at batch 32, chosen by measurement.
@pytest.mark.parametrize(
    ("shape", "forward", "backward"),
    [
        ((32, 384, 4096, 16), (4096, 1, 3), (688, 6, 1)),
        ((32, 768, 1024, 16), (1024, 1, 6), (512, 2, 3)),
        ((32, 1536, 256, 16), (256, 1, 12), (256, 1, 6)),
        ((32, 3072, 64, 16), (64, 1, 24), (64, 1, 12)),
        ((32, 768, 4096, 4), (4096, 1, 24), (2048, 2, 12)),
        ((32, 1536, 1024, 4), (1024, 1, 48), (1024, 1, 24)),
        ((32, 3072, 256, 4), (256, 1, 96), (256, 1, 48)),
        ((32, 6144, 64, 4), (64, 1, 192), (64, 1, 96)),
        ((32, 12, 1024, 1), (64, 16, 2), (64, 16, 1)),
    ],
)
def test_large_scans_are_split_as_measured(shape, forward, backward):
    inputs = make_inputs(*shape)
    plans = plan_forward(inputs), plan_backward(inputs)
    assert [(plan.chunk, plan.num_chunks, plan.splits) for plan in plans] == [forward, backward]
    assert [plan.tile["T"] for plan in plans] == [8, 4]


# Those of MHS-VM in bfloat16 at batch 32, and the first of VM-UNet, also at half and twice the batch.
@pytest.mark.parametrize(
    ("shape", "backward"),
    [
        ((32, 384, 4096, 16), (688, 6, 1)),
        ((32, 768, 1024, 16), (1024, 1, 2)),
        ((32, 1536, 256, 16), (256, 1, 4)),
        ((32, 3072, 64, 16), (64, 1, 12)),
        ((32, 768, 4096, 4), (2048, 2, 12)),
        ((16, 768, 1024, 16), (176, 6, 2)),
        ((64, 384, 4096, 16), (4096, 1, 1)),
    ],
)
def test_large_scans_in_16_bits(shape, backward):
    plan = plan_backward(make_inputs(*shape, dtype=torch.bfloat16))
    assert (plan.chunk, plan.num_chunks, plan.splits) == backward


# Those of UltraLight VM-UNet at batch 8 and 1, a long sequence, and the largest scan that is split more finely.
@pytest.mark.parametrize(
    ("shape", "forward", "backward"),
    [
        ((32, 16, 256, 1), (64, 4, 2), (16, 16, 1)),
        ((32, 24, 64, 1), (64, 1, 3), (16, 4, 1)),
        ((32, 32, 64, 1), (64, 1, 4), (16, 4, 2)),
        ((4, 12, 1024, 1), (64, 16, 2), (32, 32, 1)),
        ((1, 12, 5000, 1), (64, 79, 2), (64, 79, 1)),
        ((256, 24, 64, 1), (64, 1, 3), (16, 4, 1)),
        ((257, 24, 64, 1), (64, 1, 3), (64, 1, 1)),
    ],
)
def test_small_scans_are_split_more_finely_backward(shape, forward, backward):
    inputs = make_inputs(*shape)
    plans = plan_forward(inputs), plan_backward(inputs)
    assert [(plan.chunk, plan.num_chunks, plan.splits) for plan in plans] == [forward, backward]
