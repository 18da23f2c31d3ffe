"""The functions for programs and notebooks: with and without a run folder, and equal to the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import mhsvm
from mhsvm.cli.test import main as run_test
from mhsvm.cli.train import main as run_train
from mhsvm.config import load_config
from mhsvm.store import PreparedSet

CONFIG = """
run: {device: cpu}
data: {set: lesions, split: official}
train: {epochs: 2, batch_size: 4}
model:
  ultralight_vm_unet: {channels: "8,8,8,8,8,8", branches: 2, d_state: 1}
"""
BEST = Path("results/small/checkpoints/best.pt")


@pytest.fixture
def files(workplace):
    """A function that lists all files of the working folder."""
    return lambda: {path for path in workplace.rglob("*") if path.is_file() and ".duplicates" not in path.name}


def test_training_in_memory_is_that_of_the_command_and_writes_nothing(config, files):
    before = files()
    run = mhsvm.train(config)
    assert files() == before
    assert run.folder is None
    assert run_train(["--config", str(config)]) == 0
    lines = Path("results/small/metrics.jsonl").read_text().splitlines()
    assert list(run.history) == [json.loads(line) for line in lines]
    weights = torch.load(BEST, weights_only=True)["model"]
    assert all(torch.equal(value, weights[key]) for key, value in run.model.state_dict().items())
    assert not run.model.training

    with_folder = mhsvm.train(load_config(config), folder="results/api")
    assert with_folder.history == run.history
    assert all(torch.equal(value, weights[key]) for key, value in with_folder.model.state_dict().items())
    assert Path("results/api/checkpoints/last.pt").is_file()
    assert mhsvm.train(resume="results/api").history == run.history
    extended = mhsvm.train({"train": {"epochs": 3}}, resume="results/api")
    assert (extended.history[:2], len(extended.history), extended.config.train.epochs) == (run.history, 3, 3)


def test_settings_as_a_dictionary(config):
    tiny = {"channels": (8, 8, 8, 8, 8, 8), "branches": 2, "d_state": 1}
    settings = {
        "run.device": "cpu",
        "data": {"set": "lesions", "split": "official"},
        "train.epochs": 1,
        "model": {"ultralight_vm_unet": tiny},
    }
    run = mhsvm.train(settings)
    assert (run.config.train.epochs, len(run.history)) == (1, 1)
    with pytest.raises(ValueError, match="unknown setting 'train.epoch'"):
        mhsvm.train({"train.epoch": 1})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "either `config` or `resume`"),
        ({"config": "a.yaml", "resume": "results/run"}, "either `config` or `resume`"),
        ({"config": 5}, "a config is the path of a YAML file, a dictionary .*; received 5"),
        ({"config": {}, "resume": "results/run"}, "either `config` or `resume`"),
        ({"resume": "results/run", "folder": "results/other"}, "leave `folder` out"),
    ],
)
def test_arguments_that_exclude_each_other(arguments, message):
    with pytest.raises(ValueError, match=message):
        mhsvm.train(**arguments)


def test_evaluation_is_that_of_the_command(workplace, make_set, make_checkpoint, files):
    checkpoint = make_checkpoint(make_set(), path=str(BEST))
    before = files()
    result = mhsvm.evaluate(checkpoint, "lesions", device="cpu")
    assert files() == before
    assert run_test(["--d", "lesions", "--p", str(checkpoint), "--device", "cpu", "--out", "command"]) == 0
    mhsvm.write_result(result, "function")
    names = {path.relative_to("command") for path in Path("command").rglob("*") if path.is_file()}
    assert {path.relative_to("function") for path in Path("function").rglob("*") if path.is_file()} == names - {
        Path("log.txt")
    }
    for name in names - {Path("log.txt"), Path("times.json"), Path("predictions.h5")}:
        assert Path("function", name).read_bytes() == Path("command", name).read_bytes(), name
    assert result.metrics == json.loads(Path("command/summary.json").read_text())["metrics"]
    low, high = result.intervals["dsc"]
    assert low <= result.metrics["dsc"] <= high
    with result.open_predictions() as predictions:
        assert predictions.ids == result.ids
        assert predictions.probability([0]).shape == (1, 32, 32)


def test_evaluation_of_runs_and_predictors(config):
    run = mhsvm.train(config)
    with PreparedSet.open("data/lesions.h5") as prepared:
        result = mhsvm.evaluate(run, prepared, boundary=False, predictions="kept.h5")
    assert result.summary["checkpoint"]["file"] is None
    assert result.predictions == Path("kept.h5")
    assert len(result.scores) == 3
    assert "hd95_per_image" not in result.metrics

    assert run_train(["--config", str(config)]) == 0
    plain = mhsvm.evaluate(mhsvm.load_predictor(BEST, device="cpu"), "lesions", boundary=False)
    assert plain.metrics == result.metrics
    flips = mhsvm.load_predictor([BEST, BEST], device="cpu", augmentation="flips")
    averaged = mhsvm.evaluate(flips, "lesions", boundary=False)
    with averaged.open_predictions() as predictions:
        (probability,) = predictions.probability([0])
    with PreparedSet.open("data/lesions.h5") as prepared:
        image = prepared.images([prepared.ids.index(averaged.ids[0])])[0]
    np.testing.assert_allclose(probability / 255, flips(image).probability, atol=0.5 / 255 + 1e-5)
    with pytest.raises(ValueError, match="this predictor cleans its masks"):
        mhsvm.evaluate(mhsvm.load_predictor(BEST, device="cpu", fill_holes=True), "lesions")


def test_folds_that_are_averaged_have_no_test_image_that_one_was_trained_on(workplace, make_set, make_checkpoint):
    path = make_set()
    folds = [make_checkpoint(path, path=f"fold{fold}.pt", split=f"kfold-3-1-{fold}") for fold in range(2)]
    with pytest.raises(ValueError, match="has no test part: name another one with `split`"):
        mhsvm.evaluate(mhsvm.load_predictor(folds, device="cpu"), "lesions", boundary=False)
    make_set("others", num=4, first_id=100)
    assert mhsvm.evaluate(mhsvm.load_predictor(folds, device="cpu"), "others", boundary=False).protocol.trained_on == 0


def test_prediction_of_one_image_and_of_several(workplace, make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set())
    images = [np.full((20 + row, 30, 3), 40 * row, np.uint8) for row in range(3)]
    one = mhsvm.predict(images[1], checkpoint, device="cpu")
    several = mhsvm.predict(images, checkpoint, device="cpu", batch_size=2)
    assert [prediction.mask.shape for prediction in several] == [(20, 30), (21, 30), (22, 30)]
    np.testing.assert_allclose(several[1].probability, one.probability, atol=1e-6)
    predictor = mhsvm.load_predictor(checkpoint, device="cpu")
    np.testing.assert_array_equal(mhsvm.predict(images[1], predictor).mask, one.mask)


def test_prediction_drawn_over_its_image():
    image = np.full((20, 30, 3), 90, np.uint8)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:15, 5:15] = 1
    drawn = mhsvm.draw_prediction(image, mask)
    changed = (drawn != image).any(axis=-1)
    assert drawn.shape == image.shape
    assert changed[5, 5:15].all()
    assert not changed[9, 9]
    with pytest.raises(ValueError, match=r"received a mask \(10, 30\) for an image \(20, 30\)"):
        mhsvm.draw_prediction(image, mask[:10])
