"""The examples run from start to end, on small synthetic data."""

import ast
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from examples import own_network, predict_folder, train_and_evaluate
from mhsvm.synthetic import generate_sample

FOLDER = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_begins_with_its_purpose_and_command(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert f"    python examples/{path.name}" in docstring
    assert "\nShows " in docstring


def test_training_and_evaluation_write_nothing_and_print_the_result(workplace, capsys):
    train_and_evaluate.main(["--images", "10", "--size", "32", "--epochs", "1", "--device", "cpu"])
    captured = capsys.readouterr()
    first, dsc, worst, probability = captured.out.splitlines()
    assert first.startswith("epoch 1: loss ")
    assert dsc.startswith("DSC of 2 test images: 0.")
    assert worst.startswith("worst image: case_00")
    assert probability.startswith("its probability: 0.")
    assert "image/s" not in captured.err
    assert [path for path in workplace.rglob("*") if path.is_file()] == []


def test_prediction_of_a_folder_saves_an_overlay_for_each_image(tmp_path, capsys):
    images, overlays = tmp_path / "images", tmp_path / "new" / "overlays"
    images.mkdir()
    for index in range(3):
        pixels, _ = generate_sample(seed=0, index=index, size=(40 + index, 56))
        Image.fromarray(pixels).save(images / f"lesion{index}.png")
    (images / "notes.txt").write_text("no image")
    predict_folder.main([str(images), str(overlays), "--batch-size", "2", "--device", "cpu"])
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "lesion0.png",
        "lesion1.png",
        "lesion2.png",
    ]
    for index in range(3):
        with Image.open(images / f"lesion{index}.png") as image, Image.open(overlays / f"lesion{index}.png") as overlay:
            assert overlay.size == image.size
            assert np.any(np.asarray(overlay) != np.asarray(image))


def test_the_own_network_learns(capsys):
    losses = own_network.main(["--steps", "12", "--size", "32"])
    assert losses[-1] < 0.9 * losses[0]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0] == "6,026 parameters"
    assert [line.split(":")[0] for line in printed[1:]] == ["step 0", "step 10", "step 11"]
