"""`mhsvm test` with several classes, some of which may be absent."""

import csv
import json

import numpy as np
import pytest

from mhsvm.cli.compare import main as compare
from mhsvm.cli.report import main as page
from mhsvm.store import PredictionSet, PreparedSet, Sample, write_set
from tests.fixtures.tested import run_test, summary_in


def _relabel(path, name, levels):
    """Write data/NAME.h5 with other levels in the masks: {level before: level after}."""
    with PreparedSet.open(path) as prepared:
        images, masks = prepared.images(slice(None)), prepared.masks(slice(None))
        changed = np.arange(256, dtype=np.uint8)
        changed[list(levels)] = list(levels.values())
        sizes = [prepared.size] * len(masks)
        samples = [Sample(*row) for row in zip(prepared.ids, images, changed[masks], sizes, strict=True)]
        write_set(
            path.with_name(f"{name}.h5"),
            samples,
            name=name,
            size=prepared.size,
            num_classes=prepared.num_classes,
            attributes={},
            total=len(samples),
        )


def test_several_classes(workplace, make_set, make_checkpoint, capsys):
    prepared_path = make_set(num_classes=3)
    checkpoint = make_checkpoint(prepared_path, "model.num_classes", "3", "loss.name", "ce_dice")
    run_test(checkpoint)
    folder = workplace / "results/run/tests/lesions-ratio-60-20-20-1"
    content = summary_in(folder)
    matrix = np.array(content["confusion_matrix"])
    assert matrix.shape == (3, 3)
    # the last of 32 rows of each image is ignored
    assert matrix.sum() == 3 * 31 * 32
    assert list(content["classes"]) == ["1", "2"]
    with (folder / "cases.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["class"] for row in rows] == ["1", "2"] * 3
    assert sum(int(row["tp"]) for row in rows if row["class"] == "2") == matrix[2, 2]
    with PredictionSet.open(folder / "predictions.h5") as predictions:
        assert predictions.probability([0]).shape == (1, 3, 32, 32)
    assert f"confusion_matrix: {matrix.tolist()}" in capsys.readouterr().out


def test_an_absent_class_and_lesion_masks(workplace, make_set, make_checkpoint, capsys):
    path = make_set(num=5, num_classes=3)
    checkpoint = make_checkpoint(path, "model.num_classes", "3", "loss.name", "ce_dice")
    _relabel(path, "absent", {2: 0})
    _relabel(path, "binary", {1: 255, 2: 255})
    run_test(checkpoint, "--no-boundary", data="absent")
    content = summary_in(workplace / "results/run/tests/absent-all")
    assert content["mean_over"] == [1]
    assert content["metrics"]["dsc"] == content["classes"]["1"]["metrics"]["dsc"]
    assert content["classes"]["2"]["predicted"]["pixels"] == np.array(content["confusion_matrix"])[:, 2].sum()
    printed = capsys.readouterr().out
    assert "warning: class 2 is absent from the ground truth of all 5 images" in printed
    assert "class 2: absent, predicted in " in printed
    page(["results/run/tests/absent-all"])
    text = (workplace / "results/run/tests/absent-all/report.html").read_text()
    assert "means over the classes that occur in the ground truth: 1.</p>" in text
    assert '<tr><td>2</td><td colspan="3">absent, predicted in ' in text
    assert '<p class="warning">Class 2 is absent from the ground truth' in text
    with pytest.raises(ValueError, match=r"binary\.h5 of 3 classes has no pixel of a class; prepare it again:\n"):
        run_test(checkpoint, data="binary")


def test_no_class_occurs_in_any_image(workplace, make_set, make_checkpoint, capsys):
    path = make_set(num=15, num_classes=3)
    settings = ("model.num_classes", "3", "loss.name", "ce_dice")
    _relabel(path, "none", {1: 0, 2: 0, 255: 0})
    for name in ("run", "other"):
        checkpoint = make_checkpoint(path, *settings, path=f"results/{name}/checkpoints/best.pt")
        run_test(checkpoint, "--no-boundary", data="none")
    content = summary_in(workplace / "results/run/tests/none-all")
    assert (content["mean_over"], content["metrics"]["dsc"]) == ([], None)
    assert "no class occurs: there is no mean" in capsys.readouterr().out
    # a page, with a group of 15 images without lesion, and a comparison
    page(["results/run"])
    assert "occur in the ground truth: none." in (workplace / "results/run/tests/none-all/report.html").read_text()
    compare(["results/run", "results/other", "--out", "compared"])
    runs = json.loads((workplace / "compared/comparison.json").read_text())["runs"]
    assert [each["metrics"]["dsc"] for each in runs] == [None, None]


def test_other_classes_than_the_networks(make_set, make_checkpoint):
    checkpoint = make_checkpoint(make_set())
    make_set("organs", num_classes=3)
    with pytest.raises(
        ValueError, match=r"the masks of .*organs\.h5 have num_classes 3 and the network .* has 1: test it"
    ):
        run_test(checkpoint, data="organs")
