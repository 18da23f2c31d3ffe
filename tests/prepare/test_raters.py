"""Several masks an image: which rater drew which, and what a prepared set holds of them."""

import re
from pathlib import Path

import numpy as np
import pytest

from mhsvm.prepare.archive import SourceFile
from mhsvm.prepare.pairs import find_pairs
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.raters import RaterNames
from mhsvm.prepare.sets import find_set
from mhsvm.prepare.sources import SOURCES, Source
from mhsvm.store import PreparedSet


def pairs_of(*names, raters=(), source=SOURCES["folder"], mask_suffix=None):
    """Id -> primary mask and masks by rater, and the message ("" if nothing is wrong)."""
    problems = Problems()
    files = [SourceFile(name, 1, Path(name)) for name in names]
    found = {
        pair.id: (pair.mask.name, {each.rater: each.file.name for each in pair.rated})
        for pair in find_pairs(files, source, problems, raters=raters, mask_suffix=mask_suffix)
    }
    return found, "\n".join(problems.describe())


@pytest.mark.parametrize(
    ("masks", "raters"),
    [
        (("s/masks/rater1/a.png", "s/masks/rater2/a.png"), ()),
        (("s/masks/alice/a.png", "s/masks/bob/a_mask.png"), ()),
        (("s/masks/a_rater1.png", "s/masks/a_rater2.png"), ()),
        (("s/masks/a_mask_rater1.png", "s/masks/a_rater2_segmentation.png"), ()),
        (("s/alice/masks/a.png", "s/bob/masks/a.png"), ("alice", "bob")),
        (("s/Alice/a.png", "s/bob.zip/a.png"), ("alice", "bob")),
        (("s/masks/a_AL.png", "s/masks/a_bo.png"), ("al", "bo")),
        (("s/experts/expertA/a.png", "s/experts/expertB/a.png"), ()),
    ],
)
def test_raters_are_folders_or_ends_of_names(masks, raters):
    found, message = pairs_of("s/images/a.png", *masks, raters=raters)
    assert message == ""
    ((primary, rated),) = found.values()
    assert list(found) == ["a"]
    assert (primary, tuple(rated.values())) == (masks[0], masks)
    assert not raters or tuple(rated) == raters


def test_images_and_masks_in_one_folder():
    found, message = pairs_of("s/a.jpg", "s/a_rater1.png", "s/a_rater2.png", "s/b.jpg", "s/b_rater2.png")
    assert message == ""
    assert {id_: list(rated) for id_, (_, rated) in found.items()} == {"a": ["rater1", "rater2"], "b": ["rater2"]}


def test_the_mask_without_a_rater_is_the_primary_one():
    found, message = pairs_of(
        "s/images/a.png", "s/masks/rater1/a.png", "s/masks/a.png", "s/images/b.png", "s/masks/b.png"
    )
    assert message == ""
    assert found == {"a": ("s/masks/a.png", {"rater1": "s/masks/rater1/a.png"}), "b": ("s/masks/b.png", {})}


def test_raters_are_in_the_order_of_their_names_or_as_given():
    masks = [f"s/masks/rater{number}/a.png" for number in (10, 2, 1)]
    found, _ = pairs_of("s/images/a.png", *masks)
    assert list(found["a"][1]) == ["rater1", "rater2", "rater10"]
    found, _ = pairs_of("s/images/a.png", *masks, raters=("rater2", "rater10", "rater1"))
    assert list(found["a"][1]) == ["rater2", "rater10", "rater1"]
    assert found["a"][0] == "s/masks/rater2/a.png"


def test_equal_names_in_subsets_have_ids_of_their_own_for_each_rater():
    names = [f"s/{subset}/{kind}/1.png" for subset in ("train", "test") for kind in ("images", "masks/x1", "masks/x2")]
    found, message = pairs_of(*names[:-1])
    assert message == ""
    assert {id_: list(rated) for id_, (_, rated) in found.items()} == {"train/1": ["x1", "x2"], "test/1": ["x1"]}


@pytest.mark.parametrize(
    ("names", "raters", "expected"),
    [
        (("s/masks/alice/a.png",), ("alice", "bob"), r"no mask of a rater: 1\n    bob: found "),
        (("s/masks/a.png",), (), r"no mask of a rater: 1\n    any: found "),
        (
            ("s/masks/rater1/a.png", "s/masks/rater1/b.png"),
            (),
            r"mask without an image: 1\n    b: s/masks/rater1/b.png",
        ),
        (
            ("s/masks/rater1/a.png", "s/masks/a_rater1.png"),
            (),
            r"two masks of one image by one rater: 1\n    a, rater1: s/masks/rater1/a.png, s/masks/a_rater1.png",
        ),
        (
            ("s/masks/x/a.png", "s/masks/y/a.png"),
            None,
            r"mask without an image: 2\n    x/a: .*\n.*\n.* raters need `raters`",
        ),
        (("s/test/masks/rater1/a.png",), (), r"mask without an image|different subsets"),
    ],
)
def test_what_is_wrong_is_named(names, raters, expected):
    _, message = pairs_of("s/train/images/a.png" if "test" in names[0] else "s/images/a.png", *names, raters=raters)
    assert re.search(expected, message), message


@pytest.mark.parametrize("names", [("majority",), ("",), ("a", "A"), ("Random", "b")])
def test_names_that_are_none(names):
    with pytest.raises(ValueError, match=r"a rater has a name of one line|raters have different names"):
        RaterNames(SOURCES["folder"], names)


def test_a_source_may_have_raters_by_itself_with_tool_and_skill():
    source = Source(
        id_pattern=re.compile(r"ISIC_\d+"),
        looked_for="",
        rater_pattern=re.compile(r"(?P<id>ISIC_\d+)_(?P<rater>A\d+)_(?P<tool>T\d)_(?P<skill>S\d)_\w+"),
    )
    problems = Problems()
    names = ("x/ISIC_1.jpg", "x/ISIC_1_A01_T2_S1_abc.png", "x/ISIC_1_A00_T1_S2_d.png", "x/ISIC_1_mask.png")
    (pair,) = find_pairs([SourceFile(name, 1, Path(name)) for name in names], source, problems)
    assert not problems
    assert pair.mask.name == "x/ISIC_1_mask.png"
    assert [(each.rater, each.tool, each.skill) for each in pair.rated] == [("A00", "T1", "S2"), ("A01", "T2", "S1")]


@pytest.fixture
def rated(picture, lesion, lay_out):
    """Two images of an own set; the first has masks of two raters."""
    files = {"images/a.png": picture(0), "images/b.png": picture(1)}
    files |= {"masks/amy/a.png": lesion(0), "masks/bo/a.png": lesion(4), "masks/bo/b.png": lesion(2)}
    return lay_out(files)


def test_a_prepared_set_holds_the_masks_of_all_raters(rated, tmp_path):
    summary = prepare_set("folder", [rated], tmp_path / "own.h5", size=(20, 30), raters=())
    assert (summary.raters, summary.num_ratings, summary.num_several) == (("amy", "bo"), 3, 1)
    with PreparedSet.open(tmp_path / "own.h5") as prepared:
        ratings = prepared.ratings
        assert ratings.raters == ("amy", "bo")
        assert (ratings.rows.tolist(), ratings.numbers.tolist()) == ([0, 0, 1], [0, 1, 1])
        sums = {name: int((mask > 0).sum()) for name, mask in ratings.of(0).items()}
        rows, columns = np.mgrid[:20, :30]
        discs = [int(((rows - 10) ** 2 + (columns - 15) ** 2 < radius**2).sum()) for radius in (3, 7)]
        assert sums == {"amy": discs[0], "bo": discs[1]}
        np.testing.assert_array_equal(prepared.masks([0])[0], ratings.of(0)["amy"])
        np.testing.assert_array_equal(prepared.masks([1])[0], ratings.of(1)["bo"])
    # the folder beside the file is that of the set
    (tmp_path / "data").mkdir()
    (tmp_path / "own.h5").rename(tmp_path / "data" / "own.h5")
    rated.rename(tmp_path / "data" / "own")
    assert find_set("own", tmp_path / "data") == tmp_path / "data" / "own.h5"
    (tmp_path / "data/own/masks/bo/b.png").unlink()
    with pytest.raises(ValueError, match="are different sets of one name"):
        find_set("own", tmp_path / "data")


def test_every_mask_is_checked(rated, lesion, tmp_path, picture):
    (rated / "masks/bo/a.png").write_bytes(lesion(0, 21, 30))
    with pytest.raises(ValueError, match=r"mask and image of different sizes: 1\n    a: .* the mask 21 x 30"):
        prepare_set("folder", [rated], tmp_path / "own.h5", raters=())
    (rated / "masks/bo/a.png").write_bytes(picture(5))
    with pytest.raises(ValueError, match=r"masks/bo/a\.png"):
        prepare_set("folder", [rated], tmp_path / "own.h5", raters=())
    assert not (tmp_path / "own.h5").exists()


def test_a_source_with_one_mask_an_image_has_no_raters(picture, lesion, lay_out, tmp_path):
    source = lay_out({"images/a.png": picture(), "masks/a.png": lesion()})
    summary = prepare_set("folder", [source], tmp_path / "own.h5", size=16)
    assert (summary.raters, summary.num_ratings) == ((), 0)
    with PreparedSet.open(tmp_path / "own.h5") as prepared:
        assert prepared.ratings is None
        assert "raters" not in prepared.attributes
