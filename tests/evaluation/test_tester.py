"""Tests compute as exactly as the training did."""

import pytest
import torch
from torch import nn

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.tester import EvaluationJob, evaluate_job
from mhsvm.losses import create_loss


@pytest.mark.parametrize("tf32", [False, True])
def test_products_are_rounded_as_in_the_training(tf32):
    job = EvaluationJob(
        model=nn.Conv2d(3, 1, 1),
        dataset=Dataset(("a",), torch.zeros(1, 4, 4, 3, dtype=torch.uint8), torch.zeros(1, 4, 4, dtype=torch.uint8)),
        augment=Augment(),
        loss=create_loss("bce_dice"),
        threshold=0.5,
        batch_size=1,
        device=torch.device("cpu"),
        tf32=tf32,
    )
    before, seen = torch.backends.cudnn.allow_tf32, []
    evaluate_job(
        job, lambda *batch: seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
    )
    assert seen == [(tf32, tf32)]
    assert torch.backends.cudnn.allow_tf32 == before
