"""Which mask trains: one of a rater, a consensus, or a random one for each epoch."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mhsvm.data import consensus
from mhsvm.data.consensus import staple_mask
from mhsvm.data.dataset import load_dataset
from mhsvm.data.loader import iterate_batches
from mhsvm.data.mask_choice import check_mask_choice
from mhsvm.store import PreparedSet, Rating, Sample, write_set

SIZE = (16, 16)
CPU = torch.device("cpu")


def square(side):
    mask = np.zeros(SIZE, np.uint8)
    mask[:side, :side] = 255
    return mask


# sides of the squares that each rater has drawn; the primary mask is 15 x 15 everywhere
SIDES = ({"x": 4, "y": 6, "z": 8}, {"y": 10}, {}, {"x": 2, "y": 12})


@pytest.fixture
def rated(tmp_path):
    samples = [
        Sample(
            f"i{row}",
            np.full((*SIZE, 3), row, np.uint8),
            square(15),
            SIZE,
            ratings=tuple(Rating(rater, square(side)) for rater, side in sides.items()),
        )
        for row, sides in enumerate(SIDES)
    ]
    path = tmp_path / "rated.h5"
    write_set(path, samples, name="s", size=SIZE, num_classes=1, attributes={}, total=4, raters=("x", "y", "z"))
    with PreparedSet.open(path) as prepared:
        yield prepared


def sides_of(masks):
    return (masks > 0).sum(dim=(1, 2)).sqrt().tolist()


@pytest.mark.parametrize(
    ("choice", "sides"),
    [
        ("primary", [15, 15, 15, 15]),
        ("first", [4, 10, 15, 2]),
        ("majority", [6, 10, 15, 2]),
        ("y", [6, 10, 15, 12]),
    ],
)
def test_one_mask_of_each_image(rated, choice, sides):
    dataset = load_dataset(rated, rated.ids, mask=choice)
    assert sides_of(dataset.masks) == sides
    assert (dataset.starts, dataset.mask_rows) == (None, None)
    assert set(np.unique(dataset.masks)) == {0, 255}


def test_staple(rated):
    dataset = load_dataset(rated, ["i3", "i0"], mask="staple")
    for mask, sides in zip(dataset.masks.numpy(), (SIDES[3], SIDES[0]), strict=True):
        expected = staple_mask(np.stack([square(side) for side in sides.values()]))
        assert np.array_equal(mask, expected * 255)


def test_random_masks_are_one_of_each_image_and_repeat_with_the_generator(rated):
    dataset = load_dataset(rated, rated.ids, mask="random")
    assert dataset.starts.tolist() == [0, 3, 4, 5, 7]
    assert sides_of(dataset.masks) == [4, 6, 8, 10, 15, 2, 12]
    seen = [set() for _ in range(4)]
    generator = torch.Generator().manual_seed(5)
    counts = torch.zeros(7)
    for _ in range(300):
        chosen = dataset.with_random_masks(generator)
        for row, place in enumerate(chosen.mask_rows.tolist()):
            seen[row].add(place)
            counts[place] += 1
    assert seen == [{0, 1, 2}, {3}, {4}, {5, 6}]
    # 100 of 300 with a standard deviation of 8, and 150 with 9
    assert (counts[:3] - 100).abs().max() < 35
    assert abs(counts[5] - 150) < 40
    first, again = (dataset.with_random_masks(torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first.mask_rows, again.mask_rows)


def test_batches_hold_the_chosen_masks(rated):
    dataset = load_dataset(rated, rated.ids, mask="random")
    dataset = replace(dataset, mask_rows=torch.tensor([2, 3, 4, 6]))
    batches = list(iterate_batches(dataset, torch.tensor([3, 0, 2]), batch_size=2, device=CPU))
    assert [sides_of(batch.masks) for batch in batches] == [[12, 8], [15]]
    assert [batch.images[:, 0, 0, 0].tolist() for batch in batches] == [[3, 0], [2]]
    part = dataset.first(2)
    assert (len(part), len(part.masks), part.starts.tolist(), part.mask_rows.tolist()) == (2, 4, [0, 3, 4], [2, 3])


def test_a_set_with_one_mask_an_image_takes_no_random_numbers(rated):
    dataset = load_dataset(rated, rated.ids)
    generator = torch.Generator().manual_seed(3)
    before = generator.get_state()
    assert dataset.with_random_masks(generator) is dataset
    assert torch.equal(generator.get_state(), before)


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        ("mayority", r"data\.mask is one of primary, .*, x, y, z, not 'mayority'.*majority"),
        ("x", r"data\.mask is 'x', and 2 of the 4 images .* such as i1: name a split"),
    ],
)
def test_choices_that_a_set_lacks(rated, choice, message):
    with pytest.raises(ValueError, match=message):
        check_mask_choice(rated, choice, rated.ids)
    for known in ("primary", "first", "majority", "staple", "random"):
        check_mask_choice(rated, known, rated.ids)
    check_mask_choice(rated, "x", ["i0", "i3"])


def test_staple_needs_its_package(rated, monkeypatch):
    monkeypatch.setattr(consensus.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'mhsvm\[raters\]'. Or take another data\.mask"):
        check_mask_choice(rated, "staple", rated.ids)


def test_a_set_without_raters_has_primary_masks_only(tmp_path):
    sample = Sample("a", np.zeros((*SIZE, 3), np.uint8), square(3), SIZE)
    write_set(tmp_path / "s.h5", [sample], name="s", size=SIZE, num_classes=1, attributes={}, total=1)
    with PreparedSet.open(tmp_path / "s.h5") as prepared:
        check_mask_choice(prepared, "primary", ["a"])
        with pytest.raises(
            ValueError, match=r"has one mask an image: take 'primary', or prepare the set with `raters`"
        ):
            check_mask_choice(prepared, "majority", ["a"])
