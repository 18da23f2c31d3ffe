import os
import warnings
import zipfile

import numpy as np
import pytest
import torch

from mhsvm.models.checkpoint_file import read_checkpoint, weights_in


class Payload:
    """Unpickling it would make a folder."""

    def __init__(self, folder):
        self.folder = str(folder)

    def __reduce__(self):
        return os.mkdir, (self.folder,)


def test_published_training_checkpoints_hold_numpy_scalars(tmp_path):
    path = tmp_path / "latest.pth"
    content = {
        "epoch": 7,
        "min_loss": np.float64(0.25),
        "loss": np.float32(0.5),
        "min_epoch": np.int64(6),
        "model_state_dict": {"w": torch.ones(2)},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 1e-3, "betas": (0.9, 0.999)}]},
    }
    torch.save(content, path)
    read = read_checkpoint(path)
    assert (read["min_loss"], read["loss"], read["min_epoch"]) == (0.25, 0.5, 6)
    assert torch.equal(weights_in(read)["w"], torch.ones(2))


def test_numpy_scalars_are_found_under_the_name_of_either_numpy(tmp_path):
    names = {}
    for core in ("core", "_core"):
        path = tmp_path / f"{core}.pth"
        torch.save({"loss": np.float64(0.25)}, path)
        patched = tmp_path / f"{core}_patched.pth"
        with zipfile.ZipFile(path) as source, zipfile.ZipFile(patched, "w") as target:
            for member in source.namelist():
                content = source.read(member)
                for other in (b"numpy.core.multiarray", b"numpy._core.multiarray"):
                    content = content.replace(other, f"numpy.{core}.multiarray".encode())
                target.writestr(member, content)
        names[core] = torch.serialization.get_unsafe_globals_in_checkpoint(patched)
        assert read_checkpoint(patched)["loss"] == 0.25
    assert "numpy.core.multiarray.scalar" in names["core"]
    assert "numpy._core.multiarray.scalar" in names["_core"]


def test_a_file_that_would_run_code_is_refused_unread(tmp_path):
    path, folder = tmp_path / "evil.pth", tmp_path / "made by the pickle"
    torch.save({"model_state_dict": {"w": torch.ones(1)}, "extra": Payload(folder)}, path)
    with pytest.raises(ValueError, match="evil.pth would run (posix|nt).mkdir, which reading weights never needs"):
        read_checkpoint(path)
    assert not folder.exists()


def test_other_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no checkpoint .*absent.pth"):
        read_checkpoint(tmp_path / "absent.pth")

    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    with pytest.raises(
        FileNotFoundError, match=r"run is a folder, not a checkpoint: .* such as .*run.checkpoints.best\.pt$"
    ):
        read_checkpoint(run)
    (run / "checkpoints" / "mine.pth").touch()
    with pytest.raises(FileNotFoundError, match=r"such as .*checkpoints.mine\.pth$"):
        read_checkpoint(run / "checkpoints")

    path = tmp_path / "image.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    with pytest.raises(ValueError, match="image.png is not a checkpoint or is incomplete"):
        read_checkpoint(path)

    whole, incomplete = tmp_path / "whole.pth", tmp_path / "incomplete.pth"
    torch.save({"w": torch.zeros(1000)}, whole)
    incomplete.write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ValueError, match="incomplete.pth is not a checkpoint or is incomplete"):
        read_checkpoint(incomplete)

    archive = tmp_path / "archive.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.writestr("images/1.txt", "no tensor")
    with pytest.raises(ValueError, match="archive.zip is not a checkpoint or is damaged"):
        read_checkpoint(archive)

    torch.save([torch.zeros(1)], whole)
    with pytest.raises(ValueError, match="whole.pth holds a list; a checkpoint is a dictionary"):
        read_checkpoint(whole)


def test_weights_lose_the_prefixes_of_wrappers_and_the_leftovers_of_profilers():
    one = torch.ones(1)
    assert list(weights_in({"module.a.weight": one, "module.b": one})) == ["a.weight", "b"]
    assert list(weights_in({"a": one, "total_ops": one, "a.total_params": one})) == ["a"]
    assert list(weights_in({"module.a": one, "head": one})) == ["module.a", "head"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no state dict in the checkpoint; it holds nothing"),
        ({"model_state_dict": 3}, "no state dict in the checkpoint; it holds model_state_dict"),
        (
            {"epoch": 3, "w": torch.ones(1)},
            "a state dict holds tensors only; these of the checkpoint are not tensors: epoch",
        ),
    ],
)
def test_content_without_weights_is_refused(content, message):
    with pytest.raises(ValueError, match=message):
        weights_in(content)


ONE, TWO = {"w": torch.ones(1)}, {"w": torch.full((1,), 2.0)}


@pytest.mark.parametrize(
    "content",
    [
        ONE,
        {"epoch": 1, "state_dict": ONE, "optimizer_states": [], "callbacks": {"ModelCheckpoint{}": {"best": ONE["w"]}}},
        {"network_weights": ONE, "optimizer_state": {"state": {0: {"step": ONE["w"]}}, "param_groups": [{}]}},
        {"net": ONE, "opt": {"state": {}, "param_groups": []}},
        {"model": ONE, "model_ema": None, "epoch": 3},
        {"ema": {"module": ONE, "updates": 10}},
        {"model": {"state_dict": ONE}},
        {"state_dict_ema": ONE, "arch": "vm_unet"},
        {"state_dict": ONE, "state_dict_ema": dict(ONE)},
        {"segmenter": ONE, "epoch": 3},
        {"_orig_mod.w": ONE["w"]},
        {"module._orig_mod.module.w": ONE["w"]},
        {"_orig_mod.module.w": ONE["w"], "n_averaged": torch.tensor(3)},
        {"module._fsdp_wrapped_module._checkpoint_wrapped_module.w": ONE["w"]},
    ],
    ids=str,
)
def test_weights_are_found_where_frameworks_put_them(content):
    assert list(weights_in(content)) == ["w"]
    assert torch.equal(weights_in(content)["w"], ONE["w"])


def test_a_part_that_was_compiled_loses_its_mark_too():
    assert list(weights_in({"encoder._orig_mod.0.w": ONE["w"], "head.w": ONE["w"]})) == ["encoder.0.w", "head.w"]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"state_dict": ONE, "state_dict_ema": TWO, "epoch": 1}, "state_dict, state_dict_ema"),
        ({"ema": {"model": ONE}, "model": TWO}, "model, ema.model"),
        ({"teacher": ONE, "student": TWO}, "teacher, student"),
    ],
)
def test_several_different_weights_are_listed_not_chosen_from(content, named):
    with pytest.raises(ValueError, match=f"holds several state dicts: {named}. Their weights differ: pass or save"):
        weights_in(content)


def test_a_torchscript_file_is_named(tmp_path):
    path = tmp_path / "script.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch says that TorchScript is deprecated
        torch.jit.script(torch.nn.ReLU()).save(str(path))
    with pytest.raises(ValueError, match="script.pt is not a checkpoint: .*torchscript.*Save the state dict"):
        read_checkpoint(path)
