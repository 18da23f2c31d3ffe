"""The command, as a person types it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mhsvm.cli.main import main as mhsvm
from mhsvm.store import PreparedSet

SCRIPT = Path(__file__).parents[2] / "scripts" / "prepare.py"


@pytest.fixture
def source(tmp_path):
    """Three pairs of an own set."""
    for number in range(3):
        for folder, pixels in (("images", np.full((6, 8, 3), 90 * number, np.uint8)), ("masks", np.eye(6, 8) > 0)):
            (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "own" / folder / f"{number}.png")
    return tmp_path / "own"


def test_script(source, tmp_path):
    out = tmp_path / "data" / "mine.h5"
    command = [sys.executable, SCRIPT, "folder", "--source", source, "--out", out, "--size", "12x16"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert f"{out}: 3 images with masks (3 without subset) in " in done.stdout
    with PreparedSet.open(out) as prepared:
        assert (prepared.name, prepared.size, prepared.ids) == ("mine", (12, 16), ("0", "1", "2"))
        assert f"checksum {prepared.checksum}" in done.stdout


def test_script_loads_no_torch():
    code = "import sys, mhsvm.cli.prepare; print([name for name in ('torch', 'monai') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_several_sources_and_empty_masks(source, tmp_path, capsys):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(source / "masks" / "1.png")
    arguments = ["prepare", "folder", "--source", str(source / "images"), str(source / "masks")]
    assert mhsvm([*arguments, "--out", str(tmp_path / "own.h5"), "--size", "8", "--workers", "1"]) == 0
    assert "1 of the masks show no lesion" in capsys.readouterr().out


def test_existing_file(source, tmp_path, capsys):
    out = tmp_path / "own.h5"
    out.write_text("kept")
    arguments = ["prepare", "folder", "--source", str(source), "--out", str(out), "--size", "8"]
    assert mhsvm(arguments) == 2
    assert capsys.readouterr().err == f"error: {out} exists already; give --overwrite to replace it\n"
    assert out.read_text() == "kept"
    assert mhsvm([*arguments, "--overwrite"]) == 0
    assert len(PreparedSet.open(out)) == 3


def test_an_unknown_set_lists_the_known(capsys):
    assert mhsvm(["prepare", "isic", "--source", "x", "--out", "y"]) == 2
    assert (
        "error: unknown source 'isic'; known: folder, ham10000, imaplusplus, isic2016, isic2017, isic2018, ph2. Did you"
        in capsys.readouterr().err
    )


def test_bad_source_is_one_message(source, tmp_path, capsys):
    (source / "masks" / "2.png").unlink()
    assert mhsvm(["prepare", "folder", "--source", str(source), "--out", str(tmp_path / "own.h5")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: the source of {tmp_path / 'own.h5'} has problems, and nothing was written:\n")
    assert "image without a mask: 1\n    2: own/images/2.png" in error
    assert "Traceback" not in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ph2", "--out", "y"], "the following arguments are required: --source"),
        (["ph2", "--source", "x", "--out", "y", "--size", "big"], "a size is written 256 or 192x256"),
    ],
)
def test_bad_arguments(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        mhsvm(["prepare", *arguments])
    assert message in capsys.readouterr().err


def test_advice_on_a_class_mask_with_a_palette_names_the_option(source, tmp_path, capsys):
    mask = Image.fromarray((np.arange(48).reshape(6, 8) % 3).astype(np.uint8), "P")
    mask.putpalette([0, 0, 0, 255, 0, 0, 0, 255, 0])
    mask.save(source / "masks/1.png")
    arguments = ["folder", "--source", str(source), "--out", str(tmp_path / "mine.h5"), "--size", "16"]
    assert mhsvm(["prepare", *arguments]) == 2
    message = capsys.readouterr().err
    assert "mask with several colors: 1\n    own/masks/1.png: colors" in message
    assert "and give --num-classes for them" in message
    (source / "masks/0.png").unlink()
    (source / "images/0.png").unlink()
    assert mhsvm(["prepare", *arguments, "--num-classes", "3"]) == 0
    with PreparedSet.open(tmp_path / "mine.h5") as prepared:
        (resized,) = prepared.masks([0])
        assert np.unique(resized).tolist() == [0, 1, 2]
