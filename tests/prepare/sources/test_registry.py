"""Official names, names seen in the wild, and what is beside them: who is paired with whom, in which subset."""

import re
from pathlib import Path

import pytest

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.pairs import find_pairs
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.sources import SOURCES, Source, list_sources, register_source


def paired(source, *names):
    """id -> (image, mask, subset), and the message about what is wrong ("" if nothing is)."""
    problems = Problems()
    files = [SourceFile(name, 1, Path(name)) for name in names]
    pairs = find_pairs(files, SOURCES[source], problems)
    assert [pair.id for pair in pairs] == sorted(pair.id for pair in pairs)
    found = {pair.id: (pair.image.name, pair.mask.name, pair.subset) for pair in pairs}
    try:
        problems.raise_if_any("wrong:")
    except ValueError as error:
        return found, str(error)
    return found, ""


LAYOUTS = {
    "isic2017": [
        ("ISIC-2017_Training_Data/{}.jpg", "ISIC-2017_Training_Part1_GroundTruth/{}_segmentation.png", "train"),
        (
            "ISIC-2017_Validation_Data.zip/{}.jpg",
            "ISIC-2017_Validation_Part1_GroundTruth.zip/{}_segmentation.png",
            "val",
        ),
        ("d/ISIC-2017_Test_v2_Data/{}.jpg", "d/ISIC-2017_Test_v2_Part1_GroundTruth/{}_segmentation.png", "test"),
        ("ISIC2017_Task1-2_Training_Input/{}.JPG", "ISIC2017_Task1_Training_GroundTruth/{}_segmentation.png", "train"),
        ("isic2017/train/images/{}.png", "isic2017/train/masks/{}_segmentation.png", "train"),
        ("isic2017/val/images/{}.jpg", "isic2017/val/masks/{}.png", "val"),
        ("test_data/{}.jpg", "test_data/{}_segmentation.png", ""),
    ],
    "isic2018": [
        ("ISIC2018_Task1-2_Training_Input/{}.jpg", "ISIC2018_Task1_Training_GroundTruth/{}_segmentation.png", "train"),
        (
            "x.zip/ISIC2018_Task1-2_Validation_Input/{}.jpg",
            "ISIC2018_Task1_Validation_GroundTruth/{}_segmentation.png",
            "val",
        ),
        ("ISIC2018_Task1-2_Test_Input.zip/{}.jpg", "ISIC2018_Task1_Test_GroundTruth.zip/{}_segmentation.png", "test"),
        ("data/isic2018/train/images/{}.png", "data/isic2018/train/masks/{}_segmentation.png", "train"),
    ],
    "ph2": [
        (
            "PH2Dataset/PH2 Dataset images/{0}/{0}_Dermoscopic_Image/{0}.bmp",
            "PH2Dataset/PH2 Dataset images/{0}/{0}_lesion/{0}_lesion.bmp",
            "",
        ),
        ("PH2.zip/{0}/{0}_Dermoscopic_Image/{0}.jpg", "PH2.zip/{0}/{0}_lesion/{0}_lesion.png", ""),
        ("images/{}.bmp", "masks/{}_lesion.bmp", ""),
    ],
    "folder": [
        ("own/images/{}.jpg", "own/masks/{}.png", ""),
        ("own/images/{}.tif", "own/masks/{}_segmentation.bmp", ""),
        ("images.zip/{}.jpg", "masks.zip/{}_mask.png", ""),
        ("own/Images/{}.jpg", "own/Masks/{}_lesion.png", ""),
        ("own/train/images/{}.png", "own/train/masks/{}.png", "train"),
        ("own/val/images/{}.png", "own/val/masks/{}.png", "val"),
        ("own/test/images/{}.png", "own/test/masks/{}.png", "test"),
        ("images/{}_lesion.jpg", "masks/{}_lesion.png", ""),
    ],
}
IDS = {"isic2017": "ISIC_0000001", "isic2018": "ISIC_0000003", "ph2": "IMD002", "folder": "case 7"}


@pytest.mark.parametrize(
    ("source", "image", "mask", "subset"), [(source, *each) for source in LAYOUTS for each in LAYOUTS[source]]
)
def test_layouts(source, image, mask, subset):
    image, mask = image.format(IDS[source]), mask.format(IDS[source])
    found, wrong = paired(source, mask, image)
    assert list(found.values()) == [(image, mask, subset)]
    assert wrong == ""


def test_every_registered_source_has_layouts_here():
    assert set(list_sources()) == set(LAYOUTS)


@pytest.mark.parametrize("source", ["isic2017", "isic2018", "ph2"])
def test_what_is_beside_a_set_is_skipped(source):
    image, mask = (name.format(IDS[source]) for name in LAYOUTS[source][0][:2])
    beside = [
        "ISIC-2017_Training_Data/ISIC_0000001_superpixels.png",
        "ISIC-2017_Training_Data/ISIC-2017_Training_Data_metadata.csv",
        "ISIC-2017_Training_Part3_GroundTruth.csv",
        "ISIC2018_Task1-2_Training_Input/LICENSE.txt",
        "ISIC2018_Task1-2_Training_Input/ATTRIBUTION.txt",
        "ISIC2018_Task2_Training_GroundTruth_v3/ISIC_0000003_attribute_globules.png",
        "ISIC2018_Task3_Training_Input/ISIC_0024306.jpg",
        "ISIC_2019_Training_Input/ISIC_0000000.jpg",
        "PH2Dataset/PH2 Dataset images/IMD002/IMD002_roi/IMD002_R1_Label2.bmp",
        "PH2Dataset/PH2_dataset.xlsx",
    ]
    assert paired(source, *beside, image, mask) == paired(source, image, mask)
    assert paired(source, image, mask)[1] == ""


def test_what_is_beside_own_images_and_masks_is_skipped():
    beside = ["own/preview.png", "own/overlays/a.png", "own/images/notes.txt", "own/masks/list.csv"]
    found, wrong = paired("folder", "own/images/a.png", "own/masks/a.png", *beside)
    assert (list(found), wrong) == (["a"], "")


def test_one_folder_with_both_years_and_ph2():
    names = [name.format(IDS[source]) for source in ("isic2017", "isic2018", "ph2") for name in LAYOUTS[source][0][:2]]
    for source in ("isic2017", "isic2018", "ph2"):
        found, wrong = paired(source, *names)
        assert (set(found), wrong) == ({IDS[source]}, "")


def test_pairs_by_id_never_by_position():
    found, wrong = paired(
        "folder", "images/a.png", "images/b.png", "images/c.png", "masks/c.png", "masks/a.png", "masks/b.png"
    )
    assert {id_: (image, mask) for id_, (image, mask, _) in found.items()} == {
        id_: (f"images/{id_}.png", f"masks/{id_}.png") for id_ in "abc"
    }
    assert wrong == ""


def test_missing_partners_are_all_named():
    images = [f"images/{number:02}.png" for number in range(20)]
    masks = ["masks/00.png", "masks/01.png", "masks/99_mask.png"]
    found, wrong = paired("folder", *images, *masks)
    assert set(found) == {"00", "01"}
    assert "image without a mask: 18\n    02: images/02.png\n    03: images/03.png\n" in wrong
    assert "    11: images/11.png\n    ... and 8 more\n    fix: add the folder or zip file with its mask" in wrong
    assert "mask without an image: 1\n    99: masks/99_mask.png\n    fix: " in wrong


def test_duplicate_ids():
    wrong = paired("folder", "train/images/a.png", "train/masks/a.png", "test/images/a.jpg", "test/masks/a_mask.png")[1]
    assert "id that occurs twice: 2\n    a: train/images/a.png, test/images/a.jpg\n" in wrong
    assert "    a: train/masks/a.png, test/masks/a_mask.png\n    fix: give an archive or its extracted folder" in wrong


def test_image_and_mask_of_different_subsets():
    wrong = paired("folder", "train/images/a.png", "test/masks/a.png")[1]
    assert "image and mask from different subsets: 1\n    a: train/images/a.png, test/masks/a.png\n" in wrong


def test_no_pair_says_what_was_looked_for_and_found():
    wrong = paired("ph2", *(f"download/pics/{number}.webp" for number in range(7)), "download/readme")[1]
    assert "no pair of an image and a mask: 1\n    looked for PH2Dataset/PH2 Dataset images/IMDxxx/" in wrong
    assert "found 7 .webp in download/pics, 1 without extension in download\n" in wrong
    assert "found no files" in paired("folder")[1]
    wrong = paired("folder", *(f"f{number}/x/a.png" for number in range(8)))[1]
    assert "1 .png in f0/x, 1 .png in f1/x" in wrong
    assert "... and 3 more kinds" in wrong


def test_unknown_and_taken_names():
    with pytest.raises(
        ValueError, match=r"unknown source 'ph3'; known: folder, isic2017, isic2018, ph2\. Did you mean 'ph2'\?"
    ):
        SOURCES["ph3"]
    with pytest.raises(ValueError, match="source 'ph2' is registered already, as Source of mhsvm"):
        register_source("ph2", Source(id_pattern=re.compile("x"), looked_for="x"))
