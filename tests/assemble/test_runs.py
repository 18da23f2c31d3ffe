"""A damaged last checkpoint: the message names the file and the way out."""

import pytest
import torch

from mhsvm.assemble.runs import plan_resumed
from mhsvm.training.checkpoint import save_checkpoint
from mhsvm.training.run_folder import RunFolder


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_damaged_last_checkpoint_is_not_resumed_from(tmp_path):
    run = RunFolder(tmp_path / "made")
    for path in (run.last, run.best):
        save_checkpoint(path, {"model": {"w": torch.randn(50)}, "config": {}})
    damage(run.last)
    with pytest.raises(ValueError, match=r"last\.pt is damaged: .*copy .*best\.pt over it to go on from the best"):
        plan_resumed(run.path)
    run.best.unlink()
    with pytest.raises(ValueError, match=r"last\.pt is damaged: .*To resume, start the run again under another name"):
        plan_resumed(run.path)
