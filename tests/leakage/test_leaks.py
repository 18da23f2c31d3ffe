"""Leaks: each kind is recognized, and only leaks between two parts count."""

import numpy as np
import pytest
from PIL import Image

from mhsvm.leakage.leaks import NEAR, ONLY_ID, SAME_ID, SAME_PIXELS, Leak, find_leaks, leaks_between


def kinds(leaks):
    return {(leak.id_a, leak.id_b): leak.kind for leak in leaks}


def test_inside_a_set(write_images, scenes, brighter):
    images = {"a": scenes[0], "b": brighter(scenes[0]), "c": scenes[1], "d": scenes[1], "e": scenes[2]}
    with write_images(images) as prepared:
        leaks = find_leaks(prepared)
    assert kinds(leaks) == {("a", "b"): NEAR, ("c", "d"): SAME_PIXELS}
    assert [leak.kind for leak in leaks] == [SAME_PIXELS, NEAR]
    assert leaks[0].score == 1
    assert 0.53 <= leaks[1].score < 1


def test_between_two_sets(write_images, scenes, brighter):
    first = {"a": scenes[0], "b": scenes[1], "c": scenes[2], "d": scenes[3], "e": scenes[3]}
    second = {"a": brighter(scenes[0]), "b": scenes[4], "x": scenes[2], "y": brighter(scenes[3]), "z": scenes[5]}
    with write_images(first) as one, write_images(second, "other") as other:
        leaks = find_leaks(one, other)
    assert kinds(leaks) == {
        ("a", "a"): SAME_ID,
        ("c", "x"): SAME_PIXELS,
        ("d", "y"): NEAR,
        ("e", "y"): NEAR,
        ("b", "b"): ONLY_ID,
    }
    assert [leak.kind for leak in leaks] == [SAME_ID, SAME_PIXELS, NEAR, NEAR, ONLY_ID]
    assert leaks[-1].score is None


def test_sets_of_other_sizes_are_compared(write_images, scenes):
    smaller = np.asarray(Image.fromarray(scenes[0]).resize((64, 64), Image.Resampling.BILINEAR))
    with write_images({"a": scenes[0], "b": scenes[1]}) as one, write_images({"z": smaller}, "small") as other:
        assert kinds(find_leaks(one, other)) == {("a", "z"): NEAR}


def test_a_set_without_leaks(write_images, scenes):
    with write_images(dict(zip("abcdefgh", scenes, strict=True))) as prepared:
        assert find_leaks(prepared) == []


@pytest.mark.parametrize(("train", "test"), [("a", "b"), ("b", "a")])
def test_a_pair_crosses_either_way(train, test):
    leaks = [Leak("a", "b", NEAR, 0.8)]
    assert leaks_between(leaks, [train, "c"], [test]) == [Leak(train, test, NEAR, 0.8)]


def test_pairs_inside_a_part_do_not_count():
    leaks = [Leak("a", "b", NEAR, 0.8), Leak("c", "d", SAME_PIXELS, 1.0), Leak("a", "x", NEAR, 0.7)]
    assert leaks_between(leaks, ["a", "b"], ["c", "d"]) == []


def test_an_image_in_both_parts_is_a_leak_and_comes_first():
    leaks = [Leak("a", "b", NEAR, 0.8)]
    assert leaks_between(leaks, ["a", "c"], ["b", "c"]) == [Leak("c", "c", SAME_ID, 1.0), Leak("a", "b", NEAR, 0.8)]
