"""Prediction with models in ONNX: the masks of their checkpoint, and one error for whatever does not fit."""

import numpy as np
import pytest
import torch
from PIL import Image

import mhsvm
from mhsvm.assemble.exporting import export_trained
from mhsvm.assemble.trained import load_trained
from mhsvm.cli import predict as command
from mhsvm.cli.main import run
from tests.fixtures.predicted import draw, has_lesion, run_predict


def exported(checkpoint, path, **options):
    export_trained(load_trained(checkpoint, device=torch.device("cpu")), "onnx", path, **options)
    return path


@pytest.fixture
def checkpoint(make_set, make_checkpoint):
    """A checkpoint whose predictions have lesions."""
    return make_checkpoint(make_set(), change=has_lesion)


@pytest.fixture
def model(checkpoint, workplace):
    """The checkpoint in ONNX."""
    return exported(checkpoint, workplace / "net.onnx")


def images():
    return [np.random.default_rng(seed).integers(0, 256, (40 + seed, 50, 3), np.uint8) for seed in range(3)]


def assert_same_mask(found, expected):
    """The same but for pixels at the threshold: the weights of these tests magnify rounding."""
    assert found.shape == expected.shape
    assert np.mean(found != expected) < 2e-3


@pytest.mark.parametrize(
    "options",
    [{}, {"augmentation": "turns"}, {"threshold": 0.4, "largest_component": True, "fill_holes": True}],
    ids=["plain", "tta", "cleaned"],
)
def test_predictions_are_those_of_the_checkpoint(checkpoint, model, options):
    ours, theirs = (mhsvm.load_predictor(path, device="cpu", **options) for path in (checkpoint, model))
    assert theirs.threshold == options.get("threshold", 0.5)
    for image in images():
        expected, found = ours(image), theirs(image)
        assert_same_mask(found.mask, expected.mask)
        assert 0 < found.mask.mean() < 1
        assert found.probability.shape == image.shape[:2]
        np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)


def test_batches_and_threads(checkpoint, model, request):
    # now, because the fixtures compute faster with one
    request.getfixturevalue("_two_threads")
    expected = mhsvm.predict(images() * 2, checkpoint, device="cpu")
    for batch_size in (1, 4, 8):
        found = mhsvm.predict(images() * 2, model, batch_size=batch_size)
        assert len(found) == 6
        for one, other in zip(found, expected, strict=True):
            assert_same_mask(one.mask, other.mask)


def test_classes(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(
        make_set(num_classes=3), "model.num_classes", "3", "loss.name", "ce_dice", change=has_lesion
    )
    model = exported(checkpoint, workplace / "net.onnx")
    expected, found = (mhsvm.predict(images()[0], path, device="cpu") for path in (checkpoint, model))
    assert found.probability.shape == (3, 40, 50)
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
    assert_same_mask(found.mask, expected.mask)


def test_several_models_are_averaged(workplace, checkpoint, model, make_checkpoint):
    def change(content):
        has_lesion(content)
        content["model"]["head.bias"] += 1

    other = make_checkpoint(workplace / "data/lesions.h5", change=change, path="other.pt")
    second = exported(other, workplace / "second.onnx", scan=True)
    expected = mhsvm.predict(images()[0], [checkpoint, other], device="cpu")
    found = mhsvm.predict(images()[0], [model, second])
    np.testing.assert_allclose(found.probability, expected.probability, atol=1e-4)
    third = exported(other, workplace / "third.onnx", threshold=0.25)
    with pytest.raises(
        ValueError, match=r"have equal thresholds; received .*net.onnx with 0.5 and .*third.onnx with 0.25"
    ):
        mhsvm.load_predictor([model, third])
    assert mhsvm.load_predictor([model, third], threshold=0.3).threshold == 0.3


def test_the_command_writes_the_same_masks(workplace, checkpoint, model, capsys):
    for seed in range(3):
        draw(workplace / f"photos/{seed}.png", size=(40 + seed, 50), seed=seed)
    options = ("--batch-size", "2", "--tta", "flips", "--contours")
    assert run_predict(checkpoint, "photos", "ours", *options) == 0
    assert run_predict(model, "photos", "theirs", *options) == 0
    for path in sorted((workplace / "ours/masks").iterdir()):
        with Image.open(path) as expected, Image.open(workplace / "theirs/masks" / path.name) as found:
            assert_same_mask(np.array(found), np.array(expected))
    assert (workplace / "theirs/contours/0.json").is_file()
    capsys.readouterr()
    # it continues, and knows another model
    assert run_predict(model, "photos", "theirs", *options) == 0
    assert "3 of 3 images are done and skipped" in capsys.readouterr().out
    other = exported(checkpoint, workplace / "loops.onnx", scan=True)
    with pytest.raises(ValueError, match="begun with other settings: checkpoints"):
        run_predict(other, "photos", "theirs", *options)


def test_options_and_uses_that_do_not_fit(workplace, checkpoint, model, capsys):
    draw(workplace / "photos/a.png")

    def error(*arguments) -> str:
        words = ("--source", "photos", "--out", "out", *arguments)
        assert run(command.main, [str(word) for word in words]) == 2
        return capsys.readouterr().err

    assert "leave --gate-threshold out" in error("--p", model, "--gate-threshold", "0.1")
    assert "run by ONNX Runtime: leave --backend out" in error("--p", model, "--backend", "cpu")
    assert "received --device cuda: leave it out" in error("--p", model, "--device", "cuda")
    assert "averaged with each other only; received" in error("--p", model, checkpoint)
    assert "there is no model missing.onnx" in error("--p", "missing.onnx")
    assert not (workplace / "out").exists()
    with pytest.raises(ValueError, match="a test measures a checkpoint"):
        mhsvm.evaluate(mhsvm.load_predictor(model), "lesions")
    with pytest.raises(ValueError, match="is a model in ONNX, which mhsvm predict and mhsvm.load_predictor take"):
        mhsvm.evaluate(model, "lesions")
