"""Files of others in the place of a checkpoint: one clear error at every door, or their weights."""

import warnings

import pytest
import torch

from mhsvm import load_predictor
from mhsvm.assemble import load_trained
from mhsvm.assemble.runs import Plan, open_plan, plan_resumed
from mhsvm.config import load_config
from mhsvm.data.split_file import Split
from mhsvm.models import create_model, load_weights
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.models.pretrained import find_pretrained, list_pretrained
from mhsvm.models.registry import MODELS
from mhsvm.runtime.distributed import World
from mhsvm.training.run_folder import RunFolder


def small():
    return create_model("vm_unet", **MODELS["vm_unet"].small)


def save_script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is deprecated
        torch.jit.script(torch.nn.ReLU()).save(str(path))


def save_ours(path, **changes):
    parts = {name: {} for name in ("config", "data", "training")}
    content = {"format": "mhsvm-checkpoint", "schema": 1, "model": small().state_dict(), **parts, **changes}
    torch.save({key: value for key, value in content.items() if value is not None}, path)


FILES = {
    "a state dict": lambda path: torch.save(small().state_dict(), path),
    "Lightning": lambda path: torch.save(
        {"epoch": 3, "state_dict": {f"model.{key}": value for key, value in small().state_dict().items()}}, path
    ),
    "a pickled module": lambda path: torch.save(small(), path),
    "TorchScript": save_script,
    "an optimizer": lambda path: torch.save(torch.optim.Adam(small().parameters()).state_dict(), path),
    "a tensor": lambda path: torch.save(torch.ones(2), path),
    "no names": lambda path: torch.save({0: torch.ones(1)}, path),
    "a later schema": lambda path: save_ours(path, schema=2),
    "no config": lambda path: save_ours(path, config=None),
    "a list as config": lambda path: save_ours(path, config=[1]),
    "nothing": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("epoch 1\n"),
    "a folder": lambda path: path.mkdir(),
}
each_file = pytest.mark.parametrize("kind", FILES)


@each_file
def test_a_training_is_not_resumed_from_it(kind, tmp_path):
    last = tmp_path / "checkpoints" / "last.pt"
    last.parent.mkdir()
    FILES[kind](last)
    with pytest.raises((ValueError, FileNotFoundError), match="last.pt"):
        plan_resumed(tmp_path)


def test_released_weights_are_no_state_of_a_training():
    weights = find_pretrained(list_pretrained()[0]).path
    run, split = RunFolder("run"), Split("none", {"a": "val", "b": "train"})
    plan = Plan(load_config(), run, split, "", read_checkpoint(weights))
    with pytest.raises(ValueError, match="last.pt is a checkpoint of this package without its training"):
        open_plan(plan, World())


@each_file
def test_a_model_is_not_built_from_it(kind, tmp_path):
    FILES[kind](tmp_path / "file.pt")
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_trained(tmp_path / "file.pt", device=torch.device("cpu"))
    with pytest.raises(error.type, match="file.pt|Name the model"):
        load_predictor(tmp_path / "file.pt")


@each_file
def test_its_weights_are_taken_or_refused(kind, tmp_path):
    FILES[kind](tmp_path / "file.pt")
    if kind in ("a state dict", "Lightning", "a later schema", "no config", "a list as config"):
        assert not load_weights(small(), tmp_path / "file.pt").unfilled
    else:
        with pytest.raises((ValueError, FileNotFoundError), match="file.pt"):
            load_weights(small(), tmp_path / "file.pt")
