"""Official names, names seen in the wild, and what is beside them: who is paired with whom, in which subset."""

import re
from pathlib import Path

import pytest

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.pairs import find_pairs
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.sources import SOURCES, Source, list_sources, register_source


def paired(source, *names, mask_suffix=None):
    """id -> (image, mask, subset), and the message about what is wrong ("" if nothing is)."""
    problems = Problems()
    files = [SourceFile(name, 1, Path(name)) for name in names]
    pairs = find_pairs(files, SOURCES[source], problems, mask_suffix=mask_suffix)
    assert [pair.id for pair in pairs] == sorted(pair.id for pair in pairs)
    found = {pair.id: (pair.image.name, pair.mask.name, pair.subset) for pair in pairs}
    try:
        problems.raise_if_any("wrong:")
    except ValueError as error:
        return found, str(error)
    return found, ""


LAYOUTS = {
    "isic2016": [
        (
            "ISBI2016_ISIC_Part1_Training_Data/{}.jpg",
            "ISBI2016_ISIC_Part1_Training_GroundTruth/{}_Segmentation.png",
            "train",
        ),
        (
            "ISBI2016_ISIC_Part1_Test_Data.zip/{}.jpg",
            "ISBI2016_ISIC_Part1_Test_GroundTruth.zip/{}_Segmentation.png",
            "test",
        ),
        ("isic2016/test/images/{}.jpg", "isic2016/test/masks/{}_Segmentation.png", "test"),
    ],
    "ham10000": [
        (
            "HAM10000_images_part_2.zip/{}.jpg",
            "HAM10000_segmentations_lesion_tschandl.zip/HAM10000_segmentations_lesion_tschandl/{}_segmentation.png",
            "",
        ),
        ("ham10000_images_part_1/{}.jpg", "HAM10000_segmentations_lesion_tschandl/{}_segmentation.png", ""),
        ("ISIC2018_Task3_Training_Input/{}.jpg", "HAM10000_segmentations_lesion_tschandl/{}_segmentation.png", ""),
        ("ham/train/images/{}.jpg", "ham/train/masks/{}_segmentation.png", ""),
    ],
    "imaplusplus": [
        ("images/{}.JPG", "segs.zip/{}_A04_T3_S1_5463934bbae47821f88025ad.png", ""),
        ("ISIC-images/{}.jpg", "segs/segs/{}_MV_MV_MV_MV.png", ""),
        ("d/{}.jpg", "d/{}_A15_T1_S2.png", ""),
    ],
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
        ("PH2/images/{}.png", "PH2/label/{}.png", ""),
        ("PH2_Data/{}.bmp", "PH2_GroundTruth/{}_lesion.bmp", ""),
        ("test/images/{}.bmp", "test/labels/{}.bmp", ""),
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
        ("own/imgs/{}.png", "own/labels/{}.png", ""),
        ("own/img/{}.jpg", "own/gt/{}_gt.png", ""),
        ("own/JPEGImages/{}.jpg", "own/SegmentationClass/{}.png", ""),
        ("own/JPEGImages/{}.jpg", "own/annotations/{}_label.png", ""),
        ("CVC-ClinicDB/Original/{}.tif", "CVC-ClinicDB/Ground Truth/{}.tif", ""),
        ("own/img_dir/val/{}.jpg", "own/ann_dir/val/{}_seg.png", "val"),
        ("own/train_images/{}.jpg", "own/train_masks/{}.png", "train"),
        ("own/images-test/{}.jpg", "own/labels-test/{}.png", "test"),
        ("Dataset001/imagesTr/{}_0000.png", "Dataset001/labelsTr/{}.png", "train"),
        ("Dataset001/imagesTs/{}_0000.png", "Dataset001/labelsTs/{}.png", "test"),
        ("BUSI/benign/{}.png", "BUSI/benign/{}_mask.png", ""),
        ("own/images/{}.png", "own/images/{}_mask.png", ""),
        ("own/train/{}.jpg", "own/train/{}_segmentation.png", "train"),
        ("own/photographs/{}.jpg", "own/masks/{}.png", ""),
        ("own/masks/{}.jpg", "own/masks/{}-lesion.png", ""),
        ("own/{}_lesion.jpg", "own/{}_lesion_mask.png", ""),
    ],
}
IDS = {"isic2016": "ISIC_0000000", "ham10000": "ISIC_0024306", "imaplusplus": "ISIC_0000004"}
IDS |= {"isic2017": "ISIC_0000001", "isic2018": "ISIC_0000003", "ph2": "IMD002", "folder": "case 7"}


@pytest.mark.parametrize(
    ("source", "image", "mask", "subset"), [(source, *each) for source in LAYOUTS for each in LAYOUTS[source]]
)
def test_layouts(source, image, mask, subset):
    image, mask = image.format(IDS[source]), mask.format(IDS[source])
    found, wrong = paired(source, mask, image)
    assert list(found.values()) == [(image, mask, subset)]
    assert wrong == ""


@pytest.mark.parametrize(("source", "subset"), [("folder", "train"), ("ph2", "")])
def test_names_of_kaggles_ph2(source, subset):
    found, wrong = paired(
        source, "PH2/trainx/X_1.bmp", "PH2/trainy/Y_1.bmp", "PH2/trainx/X_2.bmp", "PH2/trainy/Y_2.bmp"
    )
    assert found == {str(n): (f"PH2/trainx/X_{n}.bmp", f"PH2/trainy/Y_{n}.bmp", subset) for n in (1, 2)}
    assert wrong == ""


def test_numbers_are_ids_of_ph2_only_where_it_has_them():
    found, wrong = paired("ph2", "own/images/1.png", "own/masks/1.png", "trainx.zip/X_2.bmp", "trainy.zip/Y_2.bmp")
    assert (list(found), wrong) == (["2"], "")


def test_several_masks_of_one_image_are_no_images():
    names = ["BUSI/benign (1).png", "BUSI/benign (1)_mask.png", "BUSI/benign (1)_mask_1.png"]
    _, wrong = paired("folder", *names)
    assert "id that occurs twice: 1\n    benign (1): BUSI/benign (1)_mask.png, BUSI/benign (1)_mask_1.png" in wrong
    assert "without" not in wrong


def test_endings_are_part_of_ids_that_images_have():
    names = [f"own/{kind}/{name}.png" for kind in ("images", "masks") for name in ("a", "a_seg")]
    found, wrong = paired("folder", *names)
    assert (found["a_seg"][1], wrong) == ("own/masks/a_seg.png", "")


def test_masks_without_images_are_named_as_masks():
    _, wrong = paired("folder", "own/a.png", "own/a_mask.png", "own/b_mask.png", "own/c.png")
    assert "mask without an image: 1\n    b: own/b_mask.png" in wrong
    assert "image without a mask: 1\n    c: own/c.png" in wrong


@pytest.mark.parametrize("suffix", ["_auto", "_AUTO.png", "auto"])
def test_an_ending_of_the_user(suffix):
    names = ["own/a.png", "own/a_auto.png", "own/b.png", "own/b_auto.png"]
    if suffix == "auto":
        names = [name.replace("_auto", "auto") for name in names]
    found, wrong = paired("folder", *names, mask_suffix=suffix)
    assert (sorted(found), wrong) == (["a", "b"], "")
    assert "image without a mask: 4" in paired("folder", *names)[1]


def test_an_ending_of_the_user_selects_among_masks():
    names = ["own/images/a.png", "own/masks/a_rater1.png", "own/masks/a_rater2.png"]
    found, wrong = paired("folder", *names, mask_suffix="_rater2")
    assert (found, wrong) == ({"a": ("own/images/a.png", "own/masks/a_rater2.png", "")}, "")
    assert "no mask with the given ending: 1\n    _rater3: found " in paired("folder", *names, mask_suffix="_rater3")[1]
    with pytest.raises(ValueError, match="`mask_suffix` is the end of the masks' names"):
        paired("folder", *names, mask_suffix="_")


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
    wrong = paired("folder", "own/images/a.png", "own/masks/a.png", "own/images/a.jpg", "own/masks/a_mask.png")[1]
    assert "id that occurs twice: 2\n    a: own/images/a.png, own/images/a.jpg\n" in wrong
    assert "    a: own/masks/a.png, own/masks/a_mask.png\n    fix: give an archive or its extracted folder" in wrong
    names = ("own/images/a.png", "own/masks/a.png")
    wrong = paired("folder", *names, *(f"x.zip/{name}" for name in names))[1]
    assert "a: own/images/a.png, x.zip/own/images/a.png" in wrong


def test_a_mask_that_may_belong_to_two_images_is_not_guessed():
    found, wrong = paired("folder", "own/train/images/a.png", "own/test/images/a.png", "own/masks/a.png")
    assert found == {}
    assert "image without a mask: 2\n    test/a: own/test/images/a.png\n    train/a: own/train/images/a.png" in wrong
    assert "mask without an image: 1\n    a: own/masks/a.png" in wrong


def test_equal_names_in_different_subsets_are_different_images():
    names = [
        f"own/{part}/{kind}/{n}.png"
        for part in ("train", "valid", "test")
        for kind in ("images", "masks")
        for n in (1, 2)
    ]
    found, wrong = paired("folder", *names, "own/train/images/3.png", "own/train/masks/3.png")
    assert wrong == ""
    assert sorted(found) == ["3", "test/1", "test/2", "train/1", "train/2", "val/1", "val/2"]
    assert found["val/2"] == ("own/valid/images/2.png", "own/valid/masks/2.png", "val")
    found, wrong = paired("folder", *names[:-1])
    assert "image without a mask: 1\n    test/2: own/test/images/2.png" in wrong


def test_equal_names_in_folders_of_one_subset_are_told_apart_by_these():
    names = [f"own/{kind}/train/{group}/1.png" for kind in ("images", "masks") for group in ("benign", "malignant")]
    found, wrong = paired("folder", *names)
    assert wrong == ""
    assert {id_: image for id_, (image, _, _) in found.items()} == {
        "train/benign/1": "own/images/train/benign/1.png",
        "train/malignant/1": "own/images/train/malignant/1.png",
    }


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
        ValueError, match=r"unknown source 'ph3'; known: .*isic2016, isic2017, isic2018, ph2\. Did you mean 'ph2'\?"
    ):
        SOURCES["ph3"]
    with pytest.raises(ValueError, match="source 'ph2' is registered already, as Source of mhsvm"):
        register_source("ph2", Source(id_pattern=re.compile("x"), looked_for="x"))
