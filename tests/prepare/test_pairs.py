"""Which files are masks, and which ids they have, where other names tell."""

from pathlib import Path

import pytest

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.pairs import mask_files, masks_by_id
from mhsvm.prepare.problems import Problems


def files(*names):
    return [SourceFile(name, 1, Path(name)) for name in names]


def masks(*names, others=()):
    """Id -> name, and the message about what is wrong ("" if nothing is)."""
    problems = Problems()
    found = masks_by_id(mask_files(files(*names), problems, kind="truth"), others, problems)
    try:
        problems.raise_if_any("wrong:")
    except ValueError as error:
        return {id_: file.name for id_, file in found.items()}, str(error)
    return {id_: file.name for id_, file in found.items()}, ""


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
