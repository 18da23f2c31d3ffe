import io
import zipfile

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from mhsvm.leakage.duplicates import DEFAULT_THRESHOLD, DuplicatePair, find_duplicates, merge_groups
from mhsvm.prepare.resize import resize_image
from mhsvm.synthetic import generate_sample

# Pairs of one lesion in ISIC 2017's training and validation images, found by a look at every candidate.
ISIC2017_PAIRS = [
    ("0012970", "0012127"),
    ("0012290", "0013594"),
    ("0000164", "0014795"),
    ("0000171", "0015124"),
    ("0000224", "0014791"),
    ("0000229", "0014771"),
    ("0000204", "0014748"),
    ("0000215", "0015313"),
    ("0000223", "0014818"),
    ("0000205", "0014742"),
    ("0000165", "0014788"),
    ("0000222", "0014846"),
    ("0000177", "0014657"),
    ("0012756", "0013184"),
    ("0000206", "0014739"),
    ("0012672", "0012673"),
    ("0000157", "0014946"),
    ("0000225", "0014778"),
    ("0000416", "0011292"),
    ("0000449", "0011082"),
    ("0012205", "0013204"),
    ("0000392", "0010475"),
    ("0001134", "0010016"),
    ("0014480", "0014507"),
    ("0000423", "0010571"),
    ("0013023", "0012222"),
    ("0000240", "0009998"),
    ("0000397", "0010074"),
    ("0000198", "0014667"),
    ("0000439", "0010853"),
    ("0013712", "0013935"),
    ("0008116", "0008528"),
    ("0013874", "0014289"),
    ("0009910", "0000420"),
    ("0001131", "0011126"),
    ("0009883", "0009884"),
    ("0001128", "0010358"),
]
# Different lesions that look alike: the best scores below the threshold.
ISIC2017_ALIKE = [
    ("0000211", "0012845"),
    ("0010587", "0011205"),
    ("0008552", "0009078"),
    ("0002976", "0008552"),
    ("0012888", "0014428"),
    ("0007235", "0009078"),
    ("0002374", "0009078"),
    ("0013433", "0013831"),
]


@pytest.fixture(scope="module")
def scenes():
    return [generate_sample(seed=11, index=index, size=(128, 128))[0] for index in range(40)]


def edited(image, edit):
    return np.asarray(edit(Image.fromarray(image)).convert("RGB"))


def recompressed(image, quality):
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


EDITS = {
    "recoloured": lambda image: ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(0.8)).enhance(0.4),
    "channels gained": lambda image: Image.fromarray(
        np.clip(np.asarray(image) * [1.1, 0.85, 0.7], 0, 255).astype(np.uint8)
    ),
    "cropped": lambda image: image.crop((10, 6, 116, 118)).resize((128, 128)),
    "shifted": lambda image: image.transform((128, 128), Image.Transform.AFFINE, (1, 0, 9, 0, 1, -7)),
    "turned a little": lambda image: image.rotate(8, Image.Resampling.BILINEAR, fillcolor=(190, 150, 140)),
    "recompressed": lambda image: recompressed(image, 30),
    "smaller": lambda image: image.resize((90, 72)),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "turned by 90 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_90),
    "turned by 180 degrees": lambda image: image.transpose(Image.Transpose.ROTATE_180),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edited_copy_is_found_and_nothing_else(scenes, name):
    copies = [edited(image, EDITS[name]) for image in scenes[:8]]
    ids = [*map(str, range(40)), *(f"{index} {name}" for index in range(8))]
    pairs = find_duplicates([*scenes, *copies], ids)
    assert {(pair.id_a, pair.id_b) for pair in pairs} == {(str(i), f"{i} {name}") for i in range(8)}
    assert all(DEFAULT_THRESHOLD <= pair.score <= 1 for pair in pairs)


def test_distinct_scenes_are_no_pairs(scenes):
    assert find_duplicates(scenes, list(map(str, range(40)))) == []


def test_equal_pixels_score_one_and_bring_all_their_copies(scenes):
    gained = edited(scenes[0], EDITS["channels gained"])
    pairs = find_duplicates([scenes[0], scenes[1], scenes[0], gained, scenes[0]], list("abcde"))
    exact = [(pair.id_a, pair.id_b) for pair in pairs if pair.score == 1]
    assert exact == [("a", "c"), ("a", "e"), ("c", "e")]
    assert {(pair.id_a, pair.id_b) for pair in pairs} - {*exact} == {("a", "d"), ("c", "d"), ("d", "e")}


def test_two_sets_are_compared_with_each_other_only(scenes):
    cropped = edited(scenes[2], EDITS["cropped"])
    first, second = [scenes[0], scenes[0], scenes[2]], [scenes[5], cropped, scenes[0], cropped]
    pairs = find_duplicates(first, ["p", "q", "r"], second, ["p", "s", "t", "u"])
    assert [(pair.id_a, pair.id_b) for pair in pairs] == [("p", "t"), ("q", "t"), ("r", "s"), ("r", "u")]


@pytest.mark.parametrize("num", [0, 1])
def test_too_few_to_pair(scenes, num):
    assert find_duplicates(scenes[:num], list("a")[:num]) == []
    assert find_duplicates(scenes[:1], ["a"], [], []) == []


def test_images_of_one_color_are_copies_or_nothing():
    grey, white = (np.full((64, 64, 3), value, np.uint8) for value in (120, 250))
    assert find_duplicates([grey, white, grey], list("abc")) == [DuplicatePair("a", "c", 1.0)]


def test_merging_follows_chains():
    pairs = [DuplicatePair("b", "c", 0.9), DuplicatePair("e", "f", 0.8)]
    assert merge_groups(list("abcdefg"), ["x", "x", "y", "y", "", "", ""], pairs) == (
        "x",
        "x",
        "x",
        "x",
        "like e",
        "like e",
        "",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([np.zeros((8, 8, 3), np.uint8)], []), "every image has an id, got 1 images_a and 0 ids_a"),
        (([np.zeros((8, 8), np.uint8)], ["a"]), r"images are uint8 \(h, w, 3\), a is uint8 \(8, 8\)"),
        (([np.zeros((8, 8, 3))], ["a"]), r"a is float64 \(8, 8, 3\): convert it to 8-bit RGB"),
        (([], [], []), "a second set is images_b and ids_b together"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_duplicates(*arguments)


@pytest.mark.parametrize(("side", "every"), [(256, 10), (128, 40)])
def test_known_pairs_of_isic2017_are_found_among_others(shared, side, every):
    known = {tuple(sorted(pair)) for pair in ISIC2017_PAIRS}
    asked = {number for pair in ISIC2017_PAIRS + ISIC2017_ALIKE for number in pair}
    images = {}
    for subset in ("Training", "Validation"):
        with zipfile.ZipFile(shared / f"data/ISIC-2017_{subset}_Data.zip") as archive:
            for row, name in enumerate(archive.namelist()):
                number = name[-11:-4]
                if row % every == 0 or number in asked:
                    with archive.open(name) as file, Image.open(file) as image:
                        images[number] = resize_image(np.asarray(image), side)
    sizes = np.full((len(images), 2), 256)
    found = {
        (pair.id_a, pair.id_b) for pair in find_duplicates(list(images.values()), list(images), original_sizes_a=sizes)
    }
    assert {tuple(sorted(pair)) for pair in found} == known
