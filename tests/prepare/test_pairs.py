"""Which files are masks, and which ids they have, where other names tell."""

from pathlib import Path

import pytest

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.mask_files import mask_files, masks_by_id
from mhsvm.prepare.pairs import find_pairs
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.sources import SOURCES


def files(*names):
    return [SourceFile(name, 1, Path(name)) for name in names]


def masks(*names, others=()):
    """Id -> name, and the message about what is wrong ("" if nothing is)."""
    problems = Problems()
    found = masks_by_id(mask_files(files(*names), problems, kind="truth"), others, problems)
    try:
        problems.raise_if_any("wrong:")
    except ValueError as error:
        return {id_: file.name for id_, (file,) in found.items()}, str(error)
    return {id_: file.name for id_, (file,) in found.items()}, ""


@pytest.mark.parametrize(
    "names",
    [
        ("out/a.png", "out/b.bmp"),
        ("out/a_segmentation.png", "out/b_Mask.png", "out/a.jpg", "out/b_superpixels.png", "out/notes.txt"),
        ("out/masks/a.png", "out/masks/sub/b.png", "out/overlays/a.jpg", "out/overlays/sub/b.jpg"),
        ("x_Part1_GroundTruth.zip/a_segmentation.png", "x_Part1_GroundTruth.zip/b_segmentation.png"),
        ("PH2/a/a_Dermoscopic_Image/a.bmp", "PH2/a/a_lesion/a_lesion.bmp", "PH2/b/b_lesion/b_lesion.bmp"),
        ("set/test/images/a.png", "set/test/masks/a.png", "set/test/masks/b.png"),
        ("out/a_prediction.png", "out/b_pred.png"),
    ],
)
def test_masks_of_every_layout(names):
    found, message = masks(*names)
    assert set(found) == {"a", "b"}
    assert message == ""
    assert not any(word in name for name in found.values() for word in ("overlays", "superpixels", ".jpg", "/a.bmp"))


@pytest.mark.parametrize("others", [("a_mask", "b_mask"), ("a_mask_segmentation", "b_mask")])
def test_an_ending_that_the_others_have_too_is_part_of_the_id(others):
    assert set(masks("out/a_mask.png", "out/b_mask.png", others=others)[0]) == {"a_mask", "b_mask"}


def test_endings_differ_between_the_two():
    assert set(masks("out/a_pred.png", "out/b.png", others=("a_segmentation", "b_segmentation"))[0]) == {"a", "b"}


def test_one_id_twice():
    _, message = masks("out/a_mask.png", "more/a_lesion.png", "out/b_mask.png")
    assert "id that occurs twice: 1\n    a: out/a_mask.png, more/a_lesion.png" in message


def test_no_mask_at_all():
    found, message = masks("out/notes.txt", "out/a.npy")
    assert found == {}
    assert "no mask: 1" in message
    assert "truth: looked for BMP, PNG, JPEG, TIFF, WebP, " in message
    assert "; found 1 .txt in out, 1 .npy in out" in message


def test_images_outside_the_known_folders_and_odd_names_are_counted():
    problems = Problems()
    names = ["own/images/a.png", "own/masks/a.png", "own/extra/b.png", "own/c.png"]
    assert [pair.id for pair in find_pairs(files(*names), SOURCES["folder"], problems)] == ["a"]
    assert problems.left_out() == ["2 images outside the folders of images and masks, such as own/c.png"]
    problems = Problems()
    names = ["ISIC_0000001.jpg", "ISIC_0000001 (1).jpg", "ISIC_0000001_segmentation.png", "ISIC_7_x_segmentation.png"]
    pairs = find_pairs(files(*(f"d/{name}" for name in names)), SOURCES["isic2017"], problems)
    assert [pair.id for pair in pairs] == ["ISIC_0000001"]
    assert problems.left_out() == [
        "1 images whose names are no ids of this set, such as d/ISIC_0000001 (1).jpg",
        "1 masks whose names have no id of this set or not the given ending, such as d/ISIC_7_x_segmentation.png",
    ]


def test_accents_of_macos_are_those_of_other_systems():
    problems = Problems()
    names = ["own/images/cafe\u0301.png", "own/masks/caf\u00e9_mask.png"]
    assert [pair.id for pair in find_pairs(files(*names), SOURCES["folder"], problems)] == ["caf\u00e9"]
    assert not problems


@pytest.mark.parametrize(
    ("names", "taken"),
    [
        (("t/gt/a.png", "t/img/a.png", "t/pred/a.png"), "t/pred/a.png"),
        (("t/GroundTruth/a.png", "t/predictions/x/a.png"), "t/predictions/x/a.png"),
        (("t/pred/masks/a.png", "t/pred/overlays/a.png", "t/pred/gt/a.png"), "t/pred/masks/a.png"),
        # the folder that is given has no say
        (("predictions/masks/a.png", "predictions/overlays/a.png"), "predictions/masks/a.png"),
    ],
)
def test_predictions_beside_a_copy_of_the_ground_truth(names, taken):
    problems = Problems()
    found = mask_files(files(*names), problems, kind="predictions", predicted=True)
    assert [file.name for file in found["a"]] == [taken]
    (line,) = problems.left_out()
    others = sorted(set(names) - {taken})
    assert line == f"{len(others)} images that are no masks by their names, such as {others[0]}"


def test_images_may_have_an_ending_where_their_masks_have_another():
    problems = Problems()
    names = ["uw/a_orig.jpg", "uw/a_contour.png", "uw/b_orig.jpg", "uw/b_orig_mask.png"]
    pairs = find_pairs(files(*names), SOURCES["folder"], problems)
    assert [(pair.id, pair.image.name) for pair in pairs] == [("a", "uw/a_orig.jpg"), ("b_orig", "uw/b_orig.jpg")]
    assert not problems


def test_masks_that_this_program_predicted_are_taken_in_whichever_folders_their_images_were():
    problems = Problems()
    masks = ["p/masks/test/images/a.png", "p/masks/train/images/a.png"]
    others = ["p/settings.json", "p/predictions.jsonl", "p/contours/masks/a.png", "p/overlays/test/images/a.jpg"]
    found = mask_files(files(*masks, *others), problems, kind="predictions", predicted=True)
    assert [file.name for file in found["a"]] == masks
    (line,) = problems.left_out()
    assert line == "2 images that are no masks by their names, such as p/contours/masks/a.png"
    by_id = masks_by_id(found, {"train/a", "test/a"}, problems)
    assert {id_: file.name for id_, (file,) in by_id.items()} == {"test/a": masks[0], "train/a": masks[1]}
    assert not problems
