"""A last checkpoint that cannot be resumed from: the message names the file and the way out."""

import pytest
import torch

from mhsvm.assemble.runs import plan_resumed
from mhsvm.config import load_config, to_dict
from mhsvm.training.checkpoint import FORMAT, SCHEMA, save_checkpoint
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


@pytest.mark.parametrize("settings", [(), ("train.epochs", "9")])
@pytest.mark.parametrize(
    ("training", "message"),
    [
        (None, "last.pt is a checkpoint of this package without its training"),
        ({}, "last.pt does not say how many epochs are done"),
        ({"progress": {"epoch": "two"}}, "last.pt does not say how many epochs are done"),
    ],
)
def test_a_checkpoint_without_its_progress(tmp_path, settings, training, message):
    run = RunFolder(tmp_path / "run")
    config = load_config()
    parts = {} if training is None else {"training": training}
    content = {"format": FORMAT, "schema": SCHEMA, "model": {"w": torch.ones(1)}, "config": to_dict(config), "data": {}}
    save_checkpoint(run.last, {**content, **parts})
    run.config.write_text(config.dump())
    with pytest.raises(ValueError, match=message):
        plan_resumed(run.path, settings)
