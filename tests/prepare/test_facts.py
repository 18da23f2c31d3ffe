"""Facts about a set that limit measurements on it."""

import numpy as np
import pytest

from mhsvm.models.create import create_model
from mhsvm.models.registry import list_models
from mhsvm.prepare.facts import NETWORK_STRIDE, is_coarse
from mhsvm.prepare.pipeline import prepare_set


def test_masks_on_a_coarse_grid():
    fine = np.zeros((8, 8), bool)
    fine[1:6, 2:6] = True
    assert not is_coarse(fine)
    assert is_coarse(np.repeat(np.repeat(fine[::2, ::2], 2, 0), 2, 1))
    # masks of one value and of odd sizes say nothing
    assert not is_coarse(np.ones((8, 8), bool))
    assert not is_coarse(fine[:7])


def test_coarse_masks_and_equal_files_are_noted(lay_out, picture, encode, tmp_path):
    coarse = np.zeros((32, 32), np.uint8)
    coarse[4:16, 8:20] = 255
    fine = coarse.copy()
    fine[16, 8:20] = 255
    masks = {"train/masks/a": coarse, "val/masks/b": fine, "val/masks/c": fine, "test/masks/d": fine}
    files = {f"{name}.png": encode(mask) for name, mask in masks.items()}
    files |= {f"{name.replace('masks', 'images')}.png": picture(0, 32, 32) for name in list(masks)[:2]}
    files |= {f"{name.replace('masks', 'images')}.png": picture(1, 32, 32) for name in list(masks)[2:]}
    summary = prepare_set("folder", [lay_out(files)], tmp_path / "own.h5", size=32)
    assert summary.facts == (
        "1 of 4 masks are constant on 2 x 2 pixels: they were drawn on a grid of 16 x 16 or less, and their boundaries "
        "are uncertain by about 2 pixels",
        "images that are one file: a (train) and b (val) with different masks (Dice 0.960); c (val) and d (test) with "
        "equal masks",
    )


@pytest.mark.parametrize(("size", "noted"), [((48, 80), True), ((64, 96), False)])
def test_a_size_that_no_network_takes_is_noted(lay_out, picture, lesion, tmp_path, size, noted):
    source = lay_out({"images/a.png": picture(), "masks/a.png": lesion()})
    facts = prepare_set("folder", [source], tmp_path / "own.h5", size=size).facts
    assert ["prepare at such as 64 x 96" in fact for fact in facts] == [True] * noted


def test_the_stride_is_that_of_every_network():
    assert {create_model(name).stride for name in list_models()} == {NETWORK_STRIDE}


def test_facts_of_isic2017(isic2017_set):
    coarse, equal = isic2017_set.facts
    assert coarse.startswith("701 of 2150 masks are constant on 2 x 2 pixels")
    assert "ISIC_0012127 (val) and ISIC_0012970 (train) with different masks (Dice 0.895)" in equal


def test_masks_that_may_be_inverted_and_full_ones_are_noted(lay_out, picture, encode, tmp_path):
    lesion = np.zeros((32, 32), np.uint8)
    lesion[5:16, 8:21] = 255
    masks = {"a": 255 - lesion, "b": 255 - lesion, "c": lesion}
    files = {f"masks/{id_}.png": encode(mask) for id_, mask in masks.items()}
    files |= {f"images/{id_}.png": picture(seed, 32, 32) for seed, id_ in enumerate(masks)}
    source = lay_out(files)
    (line,) = prepare_set("folder", [source], tmp_path / "own.h5", size=32).facts
    assert line.startswith("2 of 3 masks are lesion at all four corners: white is lesion, so invert them")
    lay_out({"masks/a.png": encode(np.full((32, 32), 255, np.uint8)), "masks/b.png": encode(lesion)})
    summary = prepare_set("folder", [source], tmp_path / "own.h5", size=32, overwrite=True)
    assert summary.facts == ("1 of 3 masks show no background",)
