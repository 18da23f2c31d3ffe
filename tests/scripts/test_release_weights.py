"""Weights that are added to the package."""

import pytest
import torch

from mhsvm.config import load_config, to_dict
from mhsvm.models import create_model, list_pretrained, pretrained
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.models.pretrained import find_pretrained
from mhsvm.training.checkpoint import save_checkpoint
from release_weights import add_pretrained


@pytest.fixture
def train(tmp_path, monkeypatch):
    """Make checkpoints, in a package without weights."""
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "index.csv").write_text("name,model,data,split,split_hash,license,sha256\n")
    monkeypatch.setattr(pretrained, "FOLDER", folder)

    def make(seed):
        torch.manual_seed(seed)
        config = load_config(None, ("model.ultralight_vm_unet.channels", "8,8,8,8,8,8"))
        model = create_model("ultralight_vm_unet", **config.model.ultralight_vm_unet).eval()
        data = {"name": "isic2017", "checksum": "c", "size": [64, 64], "split": "wu-sorted", "split_hash": "a" * 64}
        data |= {"train_ids": ["a"], "val_ids": ["b"], "test_ids": ["c"]}
        content = {"model": model.state_dict(), "config": to_dict(config), "data": data, "version": {}}
        path = tmp_path / "best.pt"
        save_checkpoint(path, {**content, "training": {"optimizer": torch.zeros(10**5)}})
        return path, model

    return make


def test_an_added_checkpoint_can_be_loaded_by_name(train):
    for seed in (0, 1):
        path, model = train(seed)
        row = add_pretrained(path, name="isic2017-small", license="CC-0")
    add_pretrained(path, name="isic2017-again", license="CC-0")
    assert list_pretrained() == ("isic2017-again", "isic2017-small")
    assert find_pretrained("isic2017-small") == row
    assert (row.model, row.data, row.split, row.license) == ("ultralight_vm_unet", "isic2017", "wu-sorted", "CC-0")
    image = torch.rand(1, 3, 32, 32)
    again = create_model("ultralight_vm_unet", pretrained="isic2017-small").eval()
    assert torch.equal(again(image), model(image))
    # without the parts that only resuming needs
    assert "training" not in read_checkpoint(row.path)
    assert row.path.stat().st_size < path.stat().st_size - 4 * 10**5


def test_other_files_and_wrong_names_are_refused(train, tmp_path):
    path, model = train(0)
    with pytest.raises(
        ValueError, match="weights have names like isic2017-wu-sorted, without folders; received '../x'"
    ):
        add_pretrained(path, name="../x", license="CC-0")
    torch.save(model.state_dict(), tmp_path / "bare.pt")
    with pytest.raises(
        ValueError, match=r"bare.pt is not a checkpoint of a training with mhsvm: it has no format, schema"
    ):
        add_pretrained(tmp_path / "bare.pt", name="bare", license="CC-0")
    assert list_pretrained() == ()
