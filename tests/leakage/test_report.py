"""Leaks in words, in a table and on contact sheets."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mhsvm.leakage.leaks import NEAR, ONLY_ID, SAME_ID, SAME_PIXELS, Leak
from mhsvm.leakage.report import leakage_content, leakage_lines, leakage_metrics, mask_lines, write_leaks
from mhsvm.leakage.seen_images import Leakage
from mhsvm.metrics import summarize
from mhsvm.store import PreparedSet, Sample, write_set


@pytest.fixture
def make_set(tmp_path):
    """A set of images of one color each."""

    def make(name, colors, side=32):
        samples = [
            Sample(
                id_, np.full((side, side, 3), color, np.uint8), np.zeros((side, side), np.uint8), (side, side), "val"
            )
            for id_, color in colors.items()
        ]
        path = tmp_path / f"{name}.h5"
        write_set(path, samples, name=name, size=(side, side), num_classes=1, attributes={}, total=len(samples))
        return PreparedSet.open(path)

    return make


def rows_of(path):
    with path.open() as file:
        return list(csv.reader(file))


def test_the_table_has_all_pairs_and_the_sheet_the_uncertain_ones(make_set, tmp_path):
    leaks = [
        Leak("a", "x", SAME_PIXELS, 1.0),
        Leak("b", "x", NEAR, 0.91),
        Leak("b", "y", NEAR, 0.625),
        Leak("a", "a", ONLY_ID, None),
    ]
    with make_set("one", {"a": 40, "b": 80}) as first, make_set("two", {"x": 120, "y": 200, "a": 250}, 48) as second:
        write_leaks(tmp_path, leaks, first, second, name="pairs")
    assert rows_of(tmp_path / "pairs.csv") == [
        ["kind", "id_a", "id_b", "score", "subset_a", "subset_b"],
        ["same pixels", "a", "x", "1.0000", "val", "val"],
        ["near-duplicate", "b", "x", "0.9100", "val", "val"],
        ["near-duplicate", "b", "y", "0.6250", "val", "val"],
        ["same id, another picture", "a", "a", "", "val", "val"],
    ]
    with Image.open(tmp_path / "pairs-1.png") as image:
        sheet = np.array(image)
    width = sheet.shape[1] // 3
    # the most doubtful first: unlike, then the lowest score
    for place, shown in enumerate(((40, 250), (80, 200), (80, 120))):
        tile = sheet[40:120, place * width : (place + 1) * width]
        for value in shown:
            assert ((tile == value).all(axis=-1)).mean() > 0.2


def test_equal_images_with_different_masks_are_named_with_their_dice(tmp_path):
    masks = {name: np.zeros((4, 4), np.uint8) for name in "abcd"}
    masks["a"][:2], masks["b"][:1], masks["c"][:2] = 255, 255, 200
    samples = [Sample(name, np.zeros((4, 4, 3), np.uint8), mask, (4, 4)) for name, mask in masks.items()]
    path = tmp_path / "own.h5"
    write_set(path, samples, name="own", size=(4, 4), num_classes=1, attributes={}, total=4)
    leaks = [Leak("a", "b", SAME_PIXELS, 1.0), Leak("a", "c", SAME_PIXELS, 1.0), Leak("a", "d", NEAR, 0.9)]
    with PreparedSet.open(path) as own:
        assert mask_lines(leaks, own, own) == [
            "pairs of equal images with different masks: 2: a and b (Dice 0.667), a and c (Dice 1.000)"
        ]
        assert mask_lines(leaks[2:], own, own) == []


def test_many_pairs_fill_several_sheets(make_set, tmp_path):
    leaks = [Leak("a", "b", NEAR, 0.6 + place / 1000) for place in range(33)]
    with make_set("one", {"a": 40, "b": 80}) as prepared:
        write_leaks(tmp_path, leaks, prepared, prepared, name="pairs")
    sizes = []
    for place in (1, 2):
        with Image.open(tmp_path / f"pairs-{place}.png") as image:
            sizes.append(image.size)
    assert sizes[0][0] > sizes[1][0]
    assert sizes[0][1] > 7 * sizes[1][1]
    assert not (tmp_path / "pairs-3.png").exists()


def test_equal_pixels_need_no_sheet(make_set, tmp_path):
    with make_set("one", {"a": 40, "b": 40}) as prepared:
        write_leaks(tmp_path, [Leak("a", "b", SAME_PIXELS, 1.0)], prepared, prepared, name="pairs")
    assert sorted(path.name for path in tmp_path.glob("pairs*")) == ["pairs.csv"]


def test_long_ids_stay_on_the_sheet(make_set, tmp_path):
    name = "a_very_long_name_" * 8
    with make_set("one", {name: 40, "b": 80}) as prepared:
        write_leaks(tmp_path, [Leak(name, "b", NEAR, 0.6)], prepared, prepared, name="pairs")
    with Image.open(tmp_path / "pairs-1.png") as image:
        sheet = np.array(image)
    # nothing is written over the margin
    assert (sheet[:, -8:] == 255).all()


def test_in_words():
    leaks = (Leak("t", "t", SAME_ID, 1.0), Leak("a", "b", NEAR, 0.9), Leak("c", "b", NEAR, 0.8))
    assert leakage_lines(Leakage(leaks, Path("own.h5"), None)) == [
        "leakage: test images with a counterpart in training, by kind: same id 1, near-duplicate 1",
        "leakage: b (like a)",
        "leakage: b (like c)",
    ]
    assert leakage_lines(Leakage((), Path("own.h5"), None)) == [
        "leakage: no test image is in training, or has a near-duplicate there"
    ]
    assert leakage_lines(Leakage((), None, "nothing is known")) == ["leakage: nothing is known"]


def test_many_pairs_are_not_all_listed():
    leaks = tuple(Leak(f"a{place}", f"b{place}", NEAR, 0.9) for place in range(25))
    lines = leakage_lines(Leakage(leaks, Path("own.h5"), None))
    assert len(lines) == 1 + 20 + 1
    assert lines[-1] == "leakage: … and 5 more pairs"


def test_both_figures():
    every = torch.tensor([[[90, 0, 10, 900]], [[50, 50, 50, 850]]])
    leakage = Leakage((Leak("a", "b", NEAR, 0.9),), Path("own.h5"), None)
    content = leakage_content(leakage, every=every, unseen=every[1:], dropped=False)
    assert content["metrics"] == {"every": summarize(every), "unseen": summarize(every[1:])}
    assert content["num_images"] == {"every": 2, "unseen": 1}
    assert (content["seen"], content["counts"], content["unknown"]) == (["b"], {"near-duplicate": 1}, None)
    line = leakage_metrics(content)
    assert line.startswith("dsc, pooled: 0.7179 of all 2 test images; without those that are in training")
    assert line.endswith(": 0.5000 of 1")


def test_no_image_may_be_left():
    every = torch.tensor([[[90, 0, 10, 900]]])
    leakage = Leakage((Leak("a", "a", SAME_ID, 1.0),), Path("own.h5"), None)
    content = leakage_content(leakage, every=every, unseen=every[:0], dropped=False)
    assert content["metrics"]["unseen"] is None
    assert leakage_metrics(content).endswith(": none is left")
