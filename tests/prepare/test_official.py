"""Names that publishers give, and names that only look like them."""

import pytest

from mhsvm.prepare.official import official_folder, official_origin, recognize

ISIC = [f"ISIC_{number:07d}" for number in range(20)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ISBI2016_ISIC_Part1_Training_Data", ("ISIC 2016", "part1", "train", "image")),
        ("ISBI2016_ISIC_Part1_Test_GroundTruth", ("ISIC 2016", "part1", "test", "mask")),
        ("ISBI2016_ISIC_Part3B_Test_Data", ("ISIC 2016", "part3b", "test", "image")),
        ("ISIC-2017_Test_v2_Data", ("ISIC 2017", "", "test", "image")),
        ("ISIC-2017_Test_v2_Part1_GroundTruth", ("ISIC 2017", "part1", "test", "mask")),
        ("ISIC-2017_Training_Part2_GroundTruth (1)", ("ISIC 2017", "part2", "train", "mask")),
        ("ISIC2018_Task1-2_Validation_Input", ("ISIC 2018", "task1-2", "val", "image")),
        ("ISIC2018_Task1-2_Test_Input - Copy (2)", ("ISIC 2018", "task1-2", "test", "image")),
        ("isic2018_task1-2_test_input-20240131T101500Z-001", ("ISIC 2018", "task1-2", "test", "image")),
        ("ISIC2018_Task2_Training_GroundTruth_v3", ("ISIC 2018", "task2", "train", "mask")),
        ("ISIC_2019_Training_Input", ("ISIC 2019", "", "train", "image")),
        ("ISIC_2020_Training_JPEG", ("ISIC 2020", "", "train", "image")),
        ("HAM10000_images_part_2", ("HAM10000", "", "", "image")),
        ("HAM10000_segmentations_lesion_tschandl", ("HAM10000", "", "", "mask")),
    ],
)
def test_official_names(name, expected):
    folder = official_folder(name)
    assert (folder.set, folder.task, folder.subset, folder.role) == expected
    assert folder.segments == (folder.task in ("", "part1", "task1-2"))


@pytest.mark.parametrize(
    "name",
    [
        "isic2017_2018",
        "isic_test_stuff",
        "isic2018_training_and_test",
        "isic2018",
        "my_ISIC-2017_Test_v2_Data",
        "ham10000",
    ],
)
def test_other_names(name):
    assert official_folder(name) is None


def test_the_innermost_official_folder_counts():
    path = "ISIC-2017_Training_Data/x/ISIC2018_Task1-2_Test_Input.zip/y/ISIC_0000000.jpg"
    assert str(official_origin(path)) == "ISIC 2018 task1-2"
    assert official_origin("isic2017/images/a.png") is None


@pytest.mark.parametrize(
    ("ids", "mask", "subset", "expected"),
    [
        (ISIC, "masks/{}_segmentation.png", "", None),
        (ISIC, "masks/{}_Segmentation.png", "", "ISIC 2016"),
        ([f"ISIC_{number:07d}" for number in (24306, 30000, 34320)], "masks/{}.png", "", "HAM10000"),
        # other images of the archive, and official folders, are not judged by their numbers
        ([f"ISIC_{number:07d}" for number in (24305, 34321)], "masks/{}.png", "", None),
        (["ISIC_0024306"], "ISIC2018_Task1_Test_GroundTruth/{}_segmentation.png", "test", None),
        (["IMD002"], "masks/{}_Segmentation.bmp", "", None),
    ],
)
def test_sets_are_recognized_by_their_files(ids, mask, subset, expected):
    assert recognize(ids, [mask.format(id_) for id_ in ids], [subset] * len(ids)) == expected


def test_isic_2016_is_recognized_by_its_counts():
    ids, subsets = [f"ISIC_{number:07d}" for number in range(1279)], ["train"] * 900 + ["test"] * 379
    assert recognize(ids, [f"masks/{id_}.png" for id_ in ids], subsets) == "ISIC 2016"
    assert recognize(ids, [f"masks/{id_}.png" for id_ in ids], [""] * 1279) == "ISIC 2016"
    # a part of another year
    ids = [*ids[:-1], "ISIC_0015294"]
    assert recognize(ids, [f"masks/{id_}.png" for id_ in ids], [""] * 1279) is None
    assert recognize(ids[:1000], [f"masks/{id_}.png" for id_ in ids[:1000]], [""] * 1000) is None
