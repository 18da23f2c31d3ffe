"""Pictures of cases: the right ones, all parts of them there, under names that tell what they are."""

import re

import numpy as np
import pytest
from PIL import Image

from mhsvm.evaluation.case_images import Case, choose_cases, draw_case, write_case_images
from mhsvm.inference.overlay import GRAY, PREDICTION, TARGET, class_color


def make_case(group="best", rank=1, *, image_id="ISIC_01", dice=0.5, size=(32, 32), num_classes=1):
    h, w = size
    generator = np.random.default_rng(rank)
    target, pred = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
    target[h // 4 : h // 2, w // 4 : w // 2] = 1
    pred[h // 4 : h // 2, w // 2 : 3 * w // 4] = 1
    probability = pred * np.uint8(200)
    if num_classes > 1:
        target[-2:], pred[:2] = 255, 2
        probability = np.stack([pred == label for label in range(num_classes)]).astype(np.uint8) * np.uint8(255)
    image = generator.integers(60, 120, size=(h, w, 3), dtype=np.uint8)
    return Case(image_id, group, rank, dice, image, target, pred, probability)


def has(image, color):
    return (np.array(image) == np.array(color)).all(axis=-1)


def test_best_median_and_worst_of_many():
    dice = np.random.default_rng(0).permutation(np.linspace(0, 1, 31))
    chosen = choose_cases(dice)
    assert [group for group, _, _ in chosen] == ["best"] * 4 + ["median"] * 4 + ["worst"] * 4
    assert [rank for _, rank, _ in chosen] == [1, 2, 3, 4, 14, 15, 16, 17, 28, 29, 30, 31]
    ranking = sorted(range(31), key=lambda row: -dice[row])
    assert [row for _, _, row in chosen] == [ranking[rank - 1] for _, rank, _ in chosen]


@pytest.mark.parametrize(
    ("num", "sizes"), [(1, (1, 0, 0)), (2, (1, 1, 0)), (5, (2, 2, 1)), (12, (4, 4, 4)), (13, (4, 4, 4))]
)
def test_no_case_comes_twice(num, sizes):
    chosen = choose_cases([0.5] * num)
    assert len({row for _, _, row in chosen}) == len(chosen)
    assert tuple(sum(group == name for group, _, _ in chosen) for name in ("best", "median", "worst")) == sizes
    # equal cases keep their order
    assert [row for _, _, row in chosen] == sorted(row for _, _, row in chosen)


def test_names_tell_group_rank_id_and_dice():
    assert make_case().file_name == "best-0001-ISIC_01-dice-0.5000.png"
    assert make_case(image_id="a/../b: c").file_name == "best-0001-a_.._b_c-dice-0.5000.png"


@pytest.mark.parametrize("letter", ["a", "é", "皮"])
def test_names_of_long_ids_fit_into_file_systems(letter, tmp_path):
    case = make_case(image_id=400 * letter)
    assert 150 < len(case.file_name.encode()) <= 255
    write_case_images(tmp_path / "figures", [case])
    assert (tmp_path / "figures" / case.file_name).is_file()


@pytest.mark.parametrize("size", [(32, 32), (256, 256), (24, 64), (500, 300)])
def test_a_case_shows_image_outlines_and_probability(size):
    case = make_case(size=size)
    image = draw_case(case)
    panel = (image.width - 4 * 8) // 3
    assert panel >= 224
    left, middle, right = (has(image, color).any(axis=0) for color in (TARGET, PREDICTION, (200, 200, 200)))
    columns = np.flatnonzero(left), np.flatnonzero(middle), np.flatnonzero(right)
    # target and prediction lie side by side in the middle panel, with swatches below it; the probability in the third
    assert all(panel < place.min() and place.max() < 2 * panel + 24 for place in columns[:2])
    assert (columns[2] >= 2 * panel + 24).any()


def test_several_classes_are_tinted_and_named():
    image = draw_case(make_case(num_classes=3))
    assert has(image, class_color(1)).any()
    assert has(image, class_color(2)).any()
    assert has(image, GRAY).any()
    assert image.width > draw_case(make_case()).width


@pytest.mark.parametrize("num_classes", [1, 3])
def test_every_case_and_an_overview(tmp_path, num_classes):
    cases = [
        make_case(group, rank, dice=1 - rank / 100, num_classes=num_classes)
        for group, ranks in (("best", (1, 2)), ("median", (3,)), ("worst", (4,)))
        for rank in ranks
    ]
    write_case_images(tmp_path / "figures", cases)
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert names == sorted([*(case.file_name for case in cases), "overview.png"])
    for name in names:
        with Image.open(tmp_path / "figures" / name) as image:
            image.load()
            assert image.mode == "RGB"
    assert re.fullmatch(r"worst-0004-ISIC_01-dice-0\.9600\.png", names[-1])


def test_one_case_is_enough(tmp_path):
    write_case_images(tmp_path / "figures", [make_case()])
    assert len(list((tmp_path / "figures").iterdir())) == 2
