"""Masks at the images' own sizes, found by id."""

import zipfile

import numpy as np
import pytest

from mhsvm.prepare.decode import decode_mask
from mhsvm.prepare.native import open_native_masks


def open_(sources, ids, source="isic2017", num_classes=1):
    return open_native_masks(sources, ids, source=source, num_classes=num_classes)


def test_masks_are_read_by_id(lay_out, lesion):
    folder = lay_out(
        {f"ISIC-2017_Test_v2_Part1_GroundTruth/ISIC_{n}_segmentation.png": lesion(n, n + 20, 30) for n in range(4)}
    )
    with open_([folder], ["ISIC_2", "ISIC_0"]) as masks:
        assert list(masks) == ["ISIC_2", "ISIC_0"]
        assert masks.read("ISIC_2").shape == (22, 30)
        assert np.unique(masks.read("ISIC_0")).tolist() == [0, 1]


def test_other_years_do_not_matter(lay_out, lesion):
    names = ("ISIC-2017_Test_v2_Part1_GroundTruth", "ISIC2018_Task1_Training_GroundTruth")
    folder = lay_out({f"{name}/ISIC_1_segmentation.png": lesion(height=20 + len(name)) for name in names})
    with open_([folder], ["ISIC_1"]) as masks:
        assert masks.read("ISIC_1").shape[0] == 20 + len(names[0])


def test_own_masks_from_a_zip(tmp_path, lesion):
    with zipfile.ZipFile(tmp_path / "own.zip", "w") as archive:
        archive.writestr("masks/mole.png", lesion())
    with open_([tmp_path / "own.zip"], ["mole"], source="my-moles") as masks:
        assert masks.read("mole").sum() > 0


def test_all_problems_at_once(lay_out, lesion, encode):
    levels = encode(np.arange(100, dtype=np.uint8).reshape(10, 10))
    folder = lay_out({"masks/a.png": lesion(), "masks/b.png": b"no picture", "masks/c.png": levels})
    with (
        pytest.raises(ValueError, match="the native masks have problems, and nothing was measured") as raised,
        open_([folder, folder / "absent"], ["a", "b", "c", "d", "e"], source="own"),
    ):
        pass
    message = str(raised.value)
    assert "test image without a native mask: 2\n    d\n    e" in message
    assert "unreadable file: 1\n    own/masks/b.png" in message
    assert "mask whose levels are all in the lower half: 1\n    own/masks/c.png: 100 levels from 0 to 99" in message
    assert "no such file or folder: 1" in message


def test_lesion_masks_are_no_class_masks(lay_out, lesion):
    folder = lay_out({"masks/a.png": lesion(), "masks/b.png": lesion(seed=1), "masks/c.png": lesion(level=1)})
    with (
        pytest.raises(ValueError, match=r"nothing but 0 and 255: 1\n    all 2 native masks, such as own/masks/"),
        open_([folder], ["a", "b"], source="organs", num_classes=3),
    ):
        pass
    with open_([folder], ["a", "b", "c"], source="organs", num_classes=3) as masks:
        assert len(list(masks)) == 3


def test_class_masks(lay_out, lesion):
    folder = lay_out({"masks/a.png": lesion(level=2), "masks/b.png": lesion(level=7)})
    with open_([folder], ["a"], source="organs", num_classes=3) as masks:
        assert np.unique(masks.read("a")).tolist() == [0, 2]
    with (
        pytest.raises(ValueError, match="class mask with a level that is no class: 1\n    own/masks/b.png: levels 7"),
        open_([folder], ["a", "b"], source="organs", num_classes=3),
    ):
        pass


def test_masks_of_a_set_that_was_thresholded_are_thresholded_too(lay_out, encode):
    folder = lay_out({"masks/a.png": encode(np.array([[0, 100, 140, 255]], np.uint8))})
    with open_native_masks([folder], ["a"], source="own", num_classes=1, threshold=0.5) as masks:
        assert masks.read("a").tolist() == [[0, 0, 1, 1]]


def test_ids_of_equal_names_are_found_by_subset(lay_out, lesion):
    names = {f"own/{part}/masks/1.png": lesion(number) for number, part in enumerate(("train", "test"))}
    folder = lay_out(names, name="own")
    with open_([folder], ["test/1"], source="folder") as masks:
        assert masks.read("test/1").tolist() == (decode_mask(lesion(1)) > 0).tolist()
    with open_([folder / "own" / "test"], ["test/1"], source="folder") as masks:
        assert list(masks) == ["test/1"]


def test_of_several_raters_the_primary_mask_is_taken(lay_out, lesion):
    folder = lay_out(
        {
            "masks/rater1/a.png": lesion(0, 21),
            "masks/rater2/a.png": lesion(0, 22),
            "masks/rater2/b.png": lesion(0, 23),
            "masks/rater1/c.png": lesion(0, 24),
            "masks/c.png": lesion(0, 25),
        }
    )
    arguments = {"source": "folder", "num_classes": 1}
    with open_native_masks([folder], ["a", "b", "c"], raters=(), **arguments) as masks:
        assert [len(masks.read(name)) for name in "abc"] == [21, 23, 25]
    with open_native_masks([folder], ["a", "c"], raters=("rater2", "rater1"), **arguments) as masks:
        assert [len(masks.read(name)) for name in "ac"] == [22, 25]
    with pytest.raises(ValueError, match="id that occurs twice"), open_native_masks([folder], ["a"], **arguments):
        pass
