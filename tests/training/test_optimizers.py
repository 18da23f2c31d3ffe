import pytest
import torch
from torch import nn

from mhsvm.training.optimizers import create_optimizer


def test_an_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="unknown optimizer 'adam'; known: ASGD, Adadelta, .*Did you mean 'Adam'"):
        create_optimizer("adam", nn.Linear(1, 1))


def test_weight_decay_can_spare_the_scans_parameters():
    model = nn.Module()
    model.A_log, model.D, model.weight = (nn.Parameter(torch.ones(2)) for _ in range(3))
    optimizer = create_optimizer("AdamW", model, decay_all=False, lr=0.1, weight_decay=0.5)
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert [decay[id(p)] for p in (model.A_log, model.D, model.weight)] == [0.0, 0.0, 0.5]
    everything = create_optimizer("AdamW", model, lr=0.1, weight_decay=0.5)
    assert [len(group["params"]) for group in everything.param_groups] == [3]
