"""Views of test-time augmentation: different, complete, and undone exactly."""

import pytest
import torch

from mhsvm.inference.tta import Transform, find_transforms, list_augmentations

MAPS = torch.arange(2 * 3 * 4 * 4).view(2, 3, 4, 4)


@pytest.mark.parametrize("name", list_augmentations())
def test_what_a_view_does_it_undoes(name):
    for view in find_transforms(name, (4, 4)):
        assert torch.equal(view.undo(view.apply(MAPS)), MAPS)


def test_views_that_keep_the_frame_take_any_size():
    maps = torch.arange(12).view(1, 1, 3, 4)
    for view in find_transforms("flips", (3, 4)):
        assert view.apply(maps).shape == maps.shape


@pytest.mark.parametrize(("name", "num"), [("none", 1), ("flips", 4), ("turns", 8)])
def test_views_differ(name, num):
    seen = {tuple(view.apply(MAPS).flatten().tolist()) for view in find_transforms(name, (4, 4))}
    assert len(seen) == num
    assert tuple(MAPS.flatten().tolist()) in seen


def test_turns_hold_the_quarter_turns():
    seen = {tuple(view.apply(MAPS).flatten().tolist()) for view in find_transforms("turns", (4, 4))}
    for turns in range(4):
        assert tuple(torch.rot90(MAPS, turns, (-2, -1)).flatten().tolist()) in seen


def test_flips_are_named_by_what_they_mirror():
    assert torch.equal(Transform(flip_rows=True).apply(MAPS), MAPS.flip(-2))
    assert torch.equal(Transform(flip_columns=True).apply(MAPS), MAPS.flip(-1))


@pytest.mark.parametrize(
    ("name", "size", "message"),
    [
        ("mirror", (4, 4), "unknown test-time augmentation 'mirror'; known: none, flips, turns"),
        (
            "turns",
            (3, 4),
            "require a square input; the checkpoint takes 3 x 4: take 'flips' instead",
        ),
    ],
)
def test_what_cannot_be_asked_for(name, size, message):
    with pytest.raises(ValueError, match=message):
        find_transforms(name, size)
