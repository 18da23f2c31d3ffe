"""Weights that come with the package; most tests replace them by a folder of their own."""

import csv
import hashlib
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mhsvm
from mhsvm.cli.main import run
from mhsvm.cli.predict import main as predict
from mhsvm.config import load_config, to_dict
from mhsvm.models import create_model, list_pretrained, pretrained
from mhsvm.models.pretrained import find_pretrained
from mhsvm.training.checkpoint import save_checkpoint

COLUMNS = ("name", "model", "data", "split", "split_hash", "license", "sha256")
SETTINGS = ("model.ultralight_vm_unet.branches", "2", "model.ultralight_vm_unet.channels", "8,8,8,8,8,8")


@pytest.fixture
def weights(tmp_path, monkeypatch) -> torch.nn.Module:
    """A small network whose checkpoint is in the index under "isic2017-small"."""
    folder = tmp_path / "weights"
    config = load_config(None, SETTINGS)
    torch.manual_seed(0)
    model = create_model("ultralight_vm_unet", **config.model.ultralight_vm_unet).eval()
    path = folder / "isic2017-small.pt"
    data = {"name": "isic2017", "checksum": "c", "size": [64, 64], "split": "wu-sorted", "split_hash": "a" * 64}
    data |= {"train_ids": ["a"], "val_ids": ["b"], "test_ids": ["c"]}
    save_checkpoint(path, {"model": model.state_dict(), "config": to_dict(config), "data": data, "version": {}})
    row = ["isic2017-small", "ultralight_vm_unet", "isic2017", "wu-sorted", "a" * 64, "CC-0"]
    with (folder / "index.csv").open("w", newline="") as file:
        csv.writer(file).writerows([COLUMNS, [*row, hashlib.sha256(path.read_bytes()).hexdigest()]])
    monkeypatch.setattr(pretrained, "FOLDER", folder)
    return model


def test_a_name_builds_the_network_that_was_trained(weights):
    model = create_model("ultralight_vm_unet", pretrained="isic2017-small").eval()
    image = torch.rand(1, 3, 64, 64)
    assert torch.equal(model(image), weights(image))
    assert list_pretrained() == list_pretrained("ultralight_vm_unet") == ("isic2017-small",)
    assert list_pretrained("mhs_vm") == ()
    found = find_pretrained("isic2017-small")
    assert (found.data, found.split, found.split_hash, found.license) == ("isic2017", "wu-sorted", "a" * 64, "CC-0")


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        (
            "ultralight_vm_unet",
            {"pretrained": "isic2018"},
            "unknown weights 'isic2018'; known for ultralight_vm_unet: isic2",
        ),
        ("mhs_vm", {"pretrained": "isic2018"}, "unknown weights 'isic2018'; known for mhs_vm: none"),
        (
            "mhs_vm",
            {"pretrained": "isic2017-small"},
            "belong to ultralight_vm_unet, not to mhs_vm; known for mhs_vm: none",
        ),
        ("ultralight_vm_unet", {"pretrained": "isic2017-small", "branches": 4}, "the weights do not fit"),
        ("ultralight_vm_unet", {"pretrained": "isic2017-small", "num_classes": 3}, "the weights do not fit"),
        ("ultralight_vm_unet", {"pretrained": "isic2017-small", "branch": 4}, "has no argument 'branch'"),
    ],
)
def test_what_does_not_go_together_is_refused(name, arguments, message, weights):
    with pytest.raises(ValueError, match="^.*") as error:
        create_model(name, **arguments)
    assert message in str(error.value)


def test_a_changed_or_missing_file_is_refused(weights):
    path = find_pretrained("isic2017-small").path
    path.write_bytes(path.read_bytes() + b"x")
    with pytest.raises(ValueError, match=r"is not the file of this package \(sha256 \w{12}, not \w{12}\)"):
        create_model("ultralight_vm_unet", pretrained="isic2017-small")
    path.unlink()
    with pytest.raises(ValueError, match=r"\(sha256 missing, not \w{12}\): install the package again"):
        find_pretrained("isic2017-small")


def test_pictures_are_predicted_by_name(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn").mkdir()
    for name in ("first", "second"):
        pixels = np.random.default_rng(0).integers(256, size=(40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "drawn" / f"{name}.png")
    arguments = ["--source", "drawn", "--out", "masks", "--device", "cpu"]
    assert run(predict, ["--weights", "isic2018", *arguments]) == 2
    assert "error: unknown weights 'isic2018'; known: isic2017-small" in capsys.readouterr().err
    assert predict(["--weights", "isic2017-small", *arguments]) == 0
    assert len(list(Path("masks/masks").iterdir())) == 2
    with pytest.raises(SystemExit):
        predict(arguments)
    assert "one of the arguments --weights --checkpoint/--p is required" in capsys.readouterr().err


def test_what_the_index_names_is_there_and_the_reverse():
    folder = pretrained.FOLDER
    assert {path.stem for path in folder.glob("*.pt")} == set(list_pretrained())
    assert {path.name for path in folder.iterdir()} == {
        "README.md",
        "index.csv",
        *(f"{n}.pt" for n in list_pretrained()),
    }
    for name in list_pretrained():
        row = find_pretrained(name)
        create_model(row.model, pretrained=name)
        assert len(row.split_hash) == 64
        assert row.license


@pytest.mark.parametrize("name", list_pretrained("ultralight_vm_unet"))
def test_lesions_of_another_hospital_are_found(name, shared):
    """PH2 in its original size, on which none of these networks was trained."""
    predict_one = mhsvm.load_predictor(name, device="cpu")
    with zipfile.ZipFile(shared / "data" / "PH2Dataset_native_sample.zip") as archive:
        for id_ in ("IMD002", "IMD003", "IMD242"):
            folder = f"PH2Dataset/PH2 Dataset images/{id_}/{id_}"
            image = Image.open(archive.open(f"{folder}_Dermoscopic_Image/{id_}.bmp")).convert("RGB")
            target = np.array(Image.open(archive.open(f"{folder}_lesion/{id_}_lesion.bmp")).convert("L")) >= 128
            mask, _ = predict_one(image)
            mask = np.asarray(mask) > 0
            assert 2 * (mask & target).sum() / (mask.sum() + target.sum()) > 0.8, id_
