"""Mask files against their targets: matching, grayscale, sizes, and all problems at once."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mhsvm.evaluation.scorer import score_files
from mhsvm.metrics import confusion_counts
from mhsvm.prepare.resize import mask_coverage


def blob(seed, height=40, width=50):
    rows, columns = np.mgrid[:height, :width]
    return ((rows / height - 0.5) ** 2 + (columns / width - 0.4 - seed / 50) ** 2 < 0.05).astype(np.uint8)


@pytest.fixture
def write(tmp_path):
    """Write arrays as PNG below a new folder: write("pred", {"a": array})."""

    def make(folder: str, arrays: dict[str, np.ndarray]) -> Path:
        for name, array in arrays.items():
            path = tmp_path / folder / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(path)
        return tmp_path / folder

    return make


def counts_of(score):
    return score.measured.scores.counts.squeeze(1).tolist()


def counted(pred, target):
    return confusion_counts(torch.from_numpy(pred)[None], torch.from_numpy(target)[None])[0].tolist()


@pytest.mark.parametrize("level", [1, 255])
def test_masks_are_matched_by_id(write, level):
    pred = write("pred", {name: blob(seed) * np.uint8(level) for seed, name in enumerate("cab")})
    target = write("truth", {f"{name}_segmentation": blob(seed + 1) * np.uint8(255) for seed, name in enumerate("cab")})
    score = score_files([pred], [target])
    assert score.measured.scores.ids == ("a", "b", "c")
    assert counts_of(score) == [counted(blob(seed), blob(seed + 1)) for seed in (1, 2, 0)]
    assert score.measured.scores.distances.shape == (3, 1, 5)
    assert (score.num_resized, score.num_only_predicted, score.num_only_target, score.grayscale) == (0, 0, 0, ())
    assert score.measured.sizes == ((40, 50),) * 3


def test_targets_in_a_zip(write, tmp_path):
    folder = write("truth/ISIC_Part1_GroundTruth", {"a_segmentation": blob(0)})
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        archive.write(folder / "a_segmentation.png", "GroundTruth/a_segmentation.png")
        archive.writestr("LICENSE.txt", "CC-0")
    score = score_files([write("pred", {"a": blob(2)})], [tmp_path / "t.zip"], boundary=False)
    assert counts_of(score) == [counted(blob(2), blob(0))]
    assert score.measured.scores.distances is None


def test_grayscale_is_thresholded(write):
    grayscale = np.array([[0, 127, 128, 255]], np.uint8)
    target = write("truth", {"a": np.array([[0, 0, 1, 1]], np.uint8), "b": np.array([[0, 0, 1, 1]], np.uint8)})
    # b has no more than the levels 0 and 1, and is a map of small probabilities all the same
    pred = write("pred", {"a": grayscale, "b": np.array([[0, 1, 1, 1]], np.uint8)})
    score = score_files([pred], [target], threshold=0.5)
    assert counts_of(score) == [[2, 0, 0, 2], [0, 0, 2, 2]]
    assert score.grayscale == ("predictions",)
    # of the 2 x 2 pairs of pixels, b has both lesion pixels at the level of one of the others
    columns = [score.measured.scores.names.index(name) for name in ("auc", "average_precision")]
    assert score.measured.scores.distances[:, 0, columns].tolist() == [[1.0, 1.0], [0.75, 2 / 3]]
    assert score.measured.levels.sum(dim=(1, 2, 3)).tolist() == [4, 4]


def test_masks_are_not_thresholded(write):
    masks = {"a": blob(0), "b": blob(1)}
    score = score_files([write("pred", masks)], [write("truth", masks)], threshold=0.5)
    assert counts_of(score) == [counted(mask, mask) for mask in masks.values()]
    assert score.grayscale == ()
    assert score.measured.levels is None


def test_a_mask_is_resized_by_area(write):
    small = blob(0, 20, 25)
    score = score_files([write("pred", {"a": small})], [write("truth", {"a": blob(0)})])
    assert counts_of(score) == [counted(small.repeat(2, axis=0).repeat(2, axis=1), blob(0))]
    assert (score.num_resized, score.measured.sizes) == (1, ((40, 50),))


def test_grayscale_is_resized_before_it_is_thresholded(write):
    # at twice the size: 0, a quarter, three quarters, 1
    pred = write("pred", {"a": np.array([[0, 255]], np.uint8), "b": np.array([[7, 255]], np.uint8)})
    target = write("truth", {name: np.array([[0, 0, 1, 1]], np.uint8) for name in "ab"})
    assert counts_of(score_files([pred], [target], threshold=0.7)) == [[2, 0, 0, 2], [2, 0, 0, 2]]
    assert counts_of(score_files([pred], [target], threshold=0.8)) == [[1, 0, 1, 2], [1, 0, 1, 2]]


def test_both_at_a_given_size(write):
    pred, target = blob(3, 33, 47), blob(0)
    score = score_files([write("pred", {"a": pred})], [write("truth", {"a": target})], size=(16, 16))
    small = [(mask_coverage(mask, (16, 16)) >= 128).astype(np.uint8) for mask in (pred, target)]
    assert counts_of(score) == [counted(*small)]
    assert score.measured.sizes == ((16, 16),)


def test_common_ids(write):
    pred, target = (
        write("pred", {"a": blob(0), "b": blob(1), "c": blob(1)}),
        write("truth", {"a": blob(0), "d": blob(1)}),
    )
    score = score_files([pred], [target], common=True)
    assert score.measured.scores.ids == ("a",)
    assert (score.num_only_predicted, score.num_only_target) == (2, 1)


def test_class_indices(write):
    target = np.array([[0, 1, 2, 255], [0, 1, 2, 255]], np.uint8)
    pred = np.array([[0, 1, 1, 1], [2, 1, 2, 0]], np.uint8)
    score = score_files([write("pred", {"a": pred})], [write("truth", {"a": target})], num_classes=3)
    assert score.measured.confusion.tolist() == [[1, 0, 1], [0, 2, 0], [0, 1, 1]]


def test_all_problems_at_once(write, tmp_path):
    names = "abcdef"
    target = write("truth", {name: blob(0) for name in (*names, "only_true")})
    pred = write("pred", {name: blob(0) for name in (*names, "only_predicted")})
    (pred / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match="the masks have problems, and nothing was scored:") as raised:
        score_files([pred], [target])
    # files without a partner are reported before anything is decoded
    assert "target without a prediction: 1\n    only_true: truth/only_true.png" in str(raised.value)
    assert "prediction without a target: 1\n    only_predicted: pred/only_predicted.png" in str(raised.value)
    write("pred", {"b": np.arange(200, dtype=np.uint8).reshape(10, 20), "c": blob(0, 50, 40)})
    write("pred", {"d": np.dstack([blob(0) * 255, blob(1) * 255, blob(2) * 255])})
    with pytest.raises(ValueError, match="nothing was scored") as raised:
        score_files([pred], [target], common=True)
    message = str(raised.value)
    assert "unreadable file: 1\n    pred/a.png" in message
    assert "file with other levels than black and white: 1\n    pred/b.png: 200 levels from 0 to 199" in message
    assert "mask with several colors: 1\n    pred/d.png: colors" in message
    assert "pred/d.png: colors" in message
    assert "give `threshold` as a fraction of full scale" in message
    assert "prediction with height and width swapped: 1\n    pred/c.png and truth/c.png: 50 x 40 and 40 x 50" in message
    with pytest.raises(ValueError, match="mask with several colors: 1\n    pred/d.png: colors"):
        score_files([pred], [target], common=True, threshold=0.5)


def test_class_problems(write):
    target = write("truth", {"a": blob(0) * 2, "b": blob(0), "c": blob(0) * 7})
    pred = write("pred", {"a": blob(0) * 255, "b": blob(0) * 3, "c": blob(0)})
    with pytest.raises(ValueError, match="nothing was scored") as raised:
        score_files([pred], [target], num_classes=3)
    message = str(raised.value)
    assert "prediction with ignored pixels: 1\n    pred/a.png" in message
    assert "class mask with a level that is no class: 2\n    pred/b.png: levels 3\n    truth/c.png: levels 7" in message


def test_nothing_to_match(write, tmp_path):
    pred, target = write("pred", {"a": blob(0)}), write("truth", {"x": blob(0)})
    with pytest.raises(ValueError, match="no common id: 1\n    such as a and x"):
        score_files([pred], [target])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no mask: 1\n    predictions: looked for .*; found no files"):
        score_files([tmp_path / "empty"], [target])
    with pytest.raises(ValueError, match="no such file or folder: 1") as raised:
        score_files([tmp_path / "absent"], [target])
    assert "no mask" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"threshold": 128.0},
            "threshold is a fraction of full scale, in \\(0, 1\\]; received 128. Level 128 is 0.5",
        ),
        ({"threshold": 0.0}, "in \\(0, 1\\]; received 0"),
        ({"threshold": 0.5, "num_classes": 3}, "class indices are not thresholded"),
    ],
)
def test_bad_arguments(write, options, message):
    folder = write("truth", {"a": blob(0)})
    with pytest.raises(ValueError, match=message):
        score_files([folder], [folder], **options)


@pytest.mark.parametrize(("binary", "kind"), [("truth", "masks of the ground truth"), ("pred", "predicted masks")])
def test_lesion_masks_are_no_class_masks(write, binary, kind):
    for side in ("pred", "truth"):
        write(side, {name: blob(0) * np.uint8(255 if side == binary else 1) for name in "ab"})
    pred, target = (write(side, {}) for side in ("pred", "truth"))
    with pytest.raises(ValueError, match=f"nothing but 0 and 255: 1\n    all 2 {kind}, such as {binary}/") as caught:
        score_files([pred], [target], num_classes=2, boundary=False)
    assert "fix: in a class mask 255 means ignore. If they are lesion masks, give `num_classes` 1" in str(caught.value)
    assert "prediction with ignored pixels" not in str(caught.value)


def test_some_ignored_predictions_are_named(write):
    pred = write("pred", {"a": blob(0), "b": blob(0) * np.uint8(255)})
    target = write("truth", {"a": blob(0), "b": blob(0)})
    with pytest.raises(ValueError, match=r"prediction with ignored pixels: 1\n    pred/b\.png"):
        score_files([pred], [target], num_classes=2, boundary=False)


def test_empty_class_masks_are_scored(write):
    empty = {"a": blob(0) * np.uint8(0)}
    score = score_files([write("pred", {"a": blob(0)})], [write("truth", empty)], num_classes=2, boundary=False)
    assert score.measured.scores.counts[0, 0, 1] == blob(0).sum()


def test_equal_names_in_subsets_are_matched_by_these(write):
    masks = {"train/masks/1": np.ones((2, 2), np.uint8), "test/masks/1": np.zeros((2, 2), np.uint8)}
    score = score_files([write("pred", masks)], [write("truth", masks)])
    assert score.measured.scores.ids == ("test/1", "train/1")
    assert counts_of(score) == [[0, 0, 0, 4], [4, 0, 0, 0]]


def test_an_ending_of_the_user(write):
    mask = np.ones((2, 2), np.uint8)
    pred, target = write("pred", {"a_auto": mask}), write("truth", {"a": mask})
    with pytest.raises(ValueError, match="no common id"):
        score_files([pred], [target])
    assert score_files([pred], [target], mask_suffix="_auto").measured.scores.ids == ("a",)


def test_masks_of_formats_that_are_not_read(write):
    pred, target = write("pred", {"a": blob(0)}), write("truth", {"a": blob(0)})
    for folder in (pred, target):
        (folder / "b.svg").touch()
    with pytest.raises(ValueError, match="image of a format that is not read: 2\n    pred/b.svg\n    truth/b.svg"):
        score_files([pred], [target])
    score = score_files([pred], [target], common=True)
    assert score.skipped == ("2 .svg images, a format that is not read, such as pred/b.svg",)
    (pred / "masks").mkdir()
    (pred / "masks/a.svg").touch()
    # by their folder, these are the masks, and an overlay is not taken for one
    with pytest.raises(ValueError, match="no mask: 1\n    predictions: looked for"):
        score_files([pred], [target], common=True)


def test_masks_of_zero_and_one_among_soft_ones_are_not_emptied(write):
    soft = (blob(0) * 255).astype(np.uint8)
    soft[np.nonzero(soft)[0][0], np.nonzero(soft)[1][0]] = 200
    target = write("truth", {"a": blob(0), "b": soft})
    pred = write("pred", {"a": blob(0) * 255, "b": blob(0) * 255})
    score = score_files([pred], [target], threshold=0.5, boundary=False)
    assert score.grayscale == ("truth",)
    assert score.measured.confusion.tolist()[1][1] == 2 * blob(0).sum()
    write("truth", {"a": blob(0) * 7})
    with pytest.raises(ValueError, match="mask whose levels are all in the lower half: 1\n    truth/a.png"):
        score_files([pred], [target], threshold=0.5)
    # as predictions, these may be maps of small probabilities; their number is reported
    score = score_files([write("maps", {"a": blob(0), "b": soft})], [pred], threshold=0.5, boundary=False)
    assert score.num_zero_one == 1


def test_the_ground_truth_is_not_scored_against_itself(write):
    target = write("out/gt", {"a": blob(0)})
    write("out/pred", {"a": blob(9)})
    score = score_files([target.parent], [target], boundary=False)
    assert counts_of(score) == [counted(blob(9), blob(0))]
    assert (score.num_same_files, score.skipped) == (
        0,
        ("1 images that are no masks by their names, such as out/gt/a.png",),
    )
    # where nothing tells predictions from targets, it is reported
    assert score_files([target], [target], boundary=False).num_same_files == 1
