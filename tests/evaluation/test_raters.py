"""Predictions against raters and their consensus, and the raters among themselves, by hand counts."""

import csv
import json

import numpy as np
import pytest

from mhsvm.data import consensus
from mhsvm.data.consensus import staple_mask
from mhsvm.evaluation.rater_summary import describe_raters, rater_lines, write_raters
from mhsvm.evaluation.raters import RaterScores, RaterSettings, compare_raters

SETTINGS = RaterSettings(("x", "y", "z"), num_classes=1, boundary=False)


def row(*pixels):
    return np.array([pixels], np.uint8)


# three raters of four pixels
MASKS = {"x": row(1, 1, 0, 0), "y": row(1, 1, 1, 0), "z": row(1, 0, 0, 0)}
PRED = row(1, 1, 1, 1)


def dice_of(scores):
    return scores.per_image()["dice"].tolist()


@pytest.fixture
def raters():
    """Three images: with three raters, with two, and with one."""
    found = RaterScores(SETTINGS)
    found.add("a", compare_raters(PRED, MASKS, SETTINGS))
    found.add("b", compare_raters(row(0, 0, 1, 1), {"x": row(0, 0, 1, 1), "z": row(0, 1, 1, 0)}, SETTINGS))
    found.add("c", compare_raters(PRED, {"y": row(1, 0, 0, 0)}, SETTINGS))
    return found


def test_comparisons_of_one_image():
    compared = compare_raters(PRED, MASKS, SETTINGS)
    dice = {names: dice_of_confusion(score.confusion) for names, score in compared.items()}
    assert dice == {
        ("prediction", "x"): pytest.approx(4 / 6),
        ("prediction", "y"): pytest.approx(6 / 7),
        ("prediction", "z"): pytest.approx(2 / 5),
        # two of three marked the first two pixels
        ("prediction", "majority"): pytest.approx(4 / 6),
        ("prediction", "staple"): pytest.approx(2 * staple_mask(np.stack([*MASKS.values()])).sum() / (4 + 2)),
        # y and z agree on the first pixel, x and z too, x and y on two
        ("prediction", "all but x"): pytest.approx(2 / 5),
        ("x", "all but x"): pytest.approx(2 / 3),
        ("prediction", "all but y"): pytest.approx(2 / 5),
        ("y", "all but y"): pytest.approx(2 / 4),
        ("prediction", "all but z"): pytest.approx(4 / 6),
        ("z", "all but z"): pytest.approx(2 / 3),
        ("x", "y"): pytest.approx(4 / 5),
        ("x", "z"): pytest.approx(2 / 3),
        ("y", "z"): pytest.approx(2 / 4),
    }


def dice_of_confusion(confusion):
    (_, fp), (fn, tp) = confusion.tolist()
    return 2 * tp / (2 * tp + fp + fn)


def test_one_rater_is_no_consensus():
    assert list(compare_raters(PRED, {"y": MASKS["y"]}, SETTINGS)) == [("prediction", "y")]


def test_the_description_has_numbers_of_images_and_the_human_ceiling(raters):
    described = json.loads(json.dumps(describe_raters(raters), allow_nan=False))
    assert [described[key] for key in ("num_masks", "num_images", "num_several", "note")] == [6, 3, 2, None]
    assert {name: each["num_images"] for name, each in described["against"].items()} == {
        **{"majority": 2, "staple": 2},
        **{"x": 2, "y": 2, "z": 2},
    }
    dsc = {name: each["metrics"]["dsc_per_image"] for name, each in described["against"].items()}
    # in b, the two raters agree on one pixel, and the prediction has two
    assert dsc["majority"] == pytest.approx((4 / 6 + 2 / 3) / 2)
    assert dsc["x"] == pytest.approx((4 / 6 + 1) / 2)
    assert dsc["y"] == pytest.approx((6 / 7 + 2 / 5) / 2)
    # pooled: 2 + 2 of 4 + 2 predicted, and 2 + 2 marked pixels
    assert described["against"]["x"]["metrics"]["dsc"] == pytest.approx(2 * 4 / (6 + 4))
    low, high = described["against"]["x"]["limits"]["dsc_per_image"]
    assert (low, high) == (pytest.approx(4 / 6), 1.0)
    among = described["among"]
    assert {name: each["rater"]["num_images"] for name, each in among.items()} == {"x": 2, "y": 1, "z": 2}
    assert among["x"]["rater"]["metrics"]["dsc_per_image"] == pytest.approx((2 / 3 + 2 / 4) / 2)
    assert among["x"]["prediction"]["metrics"]["dsc_per_image"] == pytest.approx((2 / 5 + 2 / 4) / 2)
    assert described["all_masks"]["num_masks"] == 5
    assert described["all_masks"]["raters"]["dsc_per_image"] == pytest.approx(
        (2 / 3 + 2 / 4 + 2 / 4 + 2 / 3 + 2 / 4) / 5
    )
    assert described["all_masks"]["prediction"]["dsc_per_image"] == pytest.approx(
        (2 / 5 + 2 / 4 + 2 / 5 + 4 / 6 + 1) / 5
    )
    assert described["pairs"]["num_pairs"] == 4
    assert described["pairs"]["metrics"]["dsc_per_image"] == pytest.approx((4 / 5 + 2 / 3 + 2 / 4 + 2 / 4) / 4)
    assert "dsc" not in described["pairs"]["metrics"]


def test_lines_for_a_reader(raters):
    lines = rater_lines(describe_raters(raters))
    assert lines[0] == "3 raters, 6 masks of 3 images, 2 of them with two or more"
    assert lines[1].split() == ["prediction", "against", "images", *("dsc_per_image", "95%", "interval")] + [
        *("miou_per_image", "95%", "interval")
    ]
    assert lines[2].startswith("majority            2       0.6667  ")
    assert "all but y    y           1       0.5000" in "\n".join(lines)
    assert lines[-1] == "pairs of raters, 4: dsc_per_image 0.6167, miou_per_image 0.4583"


def test_every_comparison_is_a_row(raters, tmp_path):
    write_raters(tmp_path / "raters.csv", raters)
    with (tmp_path / "raters.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[:8] == ["id", "mask", "reference", "tp", "fp", "fn", "tn", "jaccard"]
    assert len(rows) == 14 + (2 + 2 + 2 + 2 + 1) + 1
    (found,) = (each for each in rows if (each["id"], each["mask"], each["reference"]) == ("a", "y", "all but y"))
    assert [found[name] for name in ("tp", "fp", "fn", "tn", "dice")] == ["1", "2", "0", "1", "0.5"]


def test_only_single_masks():
    single = RaterScores(SETTINGS)
    single.add("c", compare_raters(PRED, {"y": row(1, 0, 0, 0)}, SETTINGS))
    described = describe_raters(single)
    assert (described["among"], described["all_masks"], described["pairs"]) == ({}, None, None)
    assert list(described["against"]) == ["y"]
    assert len(rater_lines(described)) == 3


def test_without_simpleitk_staple_is_left_out_with_a_note(monkeypatch):
    monkeypatch.setattr(consensus.importlib.util, "find_spec", lambda name: None)
    found = RaterScores(SETTINGS)
    found.add("a", compare_raters(PRED, MASKS, SETTINGS))
    described = describe_raters(found)
    assert "staple" not in described["against"]
    assert rater_lines(described)[1] == (
        "STAPLE is left out: STAPLE needs the package SimpleITK: pip install 'mhsvm[raters]'"
    )


def test_several_classes_take_the_majority_and_ignore_pixels():
    settings = RaterSettings(("x", "y"), num_classes=3, boundary=False)
    masks = {"x": row(1, 2, 255, 0), "y": row(1, 1, 2, 255)}
    compared = compare_raters(row(1, 2, 2, 0), masks, settings)
    assert ("prediction", "staple") not in compared
    # the pixel that a reference ignores is not counted, and one that the rater ignores agrees
    assert compared["prediction", "x"].confusion.sum() == 3
    assert compared["x", "y"].confusion.tolist() == [[0, 0, 0], [0, 1, 1], [0, 0, 1]]
    assert compared["prediction", "majority"].confusion.tolist() == [[1, 0, 0], [0, 1, 1], [0, 0, 1]]


def test_boundaries_have_their_arguments():
    settings = RaterSettings(("x",), num_classes=1, boundary=True, arguments={"nsd": {"tolerance": 0.0}})
    compared = compare_raters(PRED, {"x": row(1, 1, 0, 0)}, settings)
    score = compared["prediction", "x"]
    assert score.distances[0, score.names.index("nsd")].item() == pytest.approx(4 / 6)
