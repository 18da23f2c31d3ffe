"""The test images that a checkpoint has seen: found where they can be known, else reported as unknown."""

import pytest

from mhsvm.leakage.leaks import NEAR, ONLY_ID, SAME_ID
from mhsvm.leakage.seen_images import find_leakage
from mhsvm.store import PreparedSet


def recorded_of(prepared, train, val=(), test=()):
    return {
        "name": prepared.name,
        "checksum": prepared.checksum,
        "train_ids": list(train),
        "val_ids": list(val),
        "test_ids": list(test),
    }


def never():
    raise AssertionError("the training set is not needed")


def absent():
    raise FileNotFoundError("there is no data set 'own'")


@pytest.fixture
def images(scenes, brighter):
    return {"a": scenes[0], "b": brighter(scenes[0]), "c": scenes[1], "d": brighter(scenes[2]), "e": scenes[2]}


def test_the_own_test_part(write_images, images):
    with write_images(images) as prepared:
        recorded = recorded_of(prepared, train="ac", val="d", test="be")
        leakage = find_leakage(prepared, "be", recorded=recorded, open_training_set=never)
    assert [(leak.id_a, leak.id_b, leak.kind) for leak in leakage.leaks] == [("a", "b", NEAR)]
    assert (leakage.seen, leakage.unknown, leakage.training_set) == ({"b"}, None, prepared.path)
    assert leakage.counts() == {NEAR: 1}


def test_training_images_in_the_test_part(write_images, images):
    with write_images(images) as prepared:
        recorded = recorded_of(prepared, train="ac", test="be")
        leakage = find_leakage(prepared, "abcde", recorded=recorded, open_training_set=never)
    assert leakage.seen == set("abc")
    assert leakage.counts() == {SAME_ID: 2, NEAR: 1}


def test_the_same_set_prepared_otherwise(write_images, images, scenes):
    with write_images(images) as prepared:
        recorded = {**recorded_of(prepared, train="ac", test="be"), "checksum": "another"}
        assert find_leakage(prepared, "be", recorded=recorded, open_training_set=never).seen == {"b"}


def test_another_set_is_compared_with_the_training_set(write_images, images, scenes, brighter):
    other = {"a": scenes[5], "y": brighter(scenes[1]), "z": brighter(scenes[2]), "c": scenes[1]}
    write_images(images).close()
    with write_images(images) as training, write_images(other, "other") as prepared:
        recorded = recorded_of(training, train="abc", test="de")
        leakage = find_leakage(
            prepared, list(other), recorded=recorded, open_training_set=lambda: PreparedSet.open(training.path)
        )
    found = {(leak.id_a, leak.id_b): leak.kind for leak in leakage.leaks}
    assert found == {("c", "c"): SAME_ID, ("c", "y"): NEAR, ("a", "a"): ONLY_ID}
    # an id that both sets happen to use is no leak
    assert leakage.seen == {"c", "y"}
    assert leakage.counts() == {SAME_ID: 1, NEAR: 1, ONLY_ID: 1}
    assert leakage.training_set == training.path


def test_without_the_training_set_ids_are_compared(write_images, images, scenes):
    with write_images(images) as training, write_images({"a": scenes[0], "z": scenes[1]}, "other") as prepared:
        recorded = recorded_of(training, train="abc")
        leakage = find_leakage(prepared, "az", recorded=recorded, open_training_set=absent)
        changed = find_leakage(
            prepared,
            "az",
            recorded={**recorded, "checksum": "another"},
            open_training_set=lambda: PreparedSet.open(training.path),
        )
    assert (leakage.seen, leakage.training_set) == ({"a"}, None)
    reason = "only ids were compared, as the training set is not available: "
    assert leakage.unknown == f"{reason}there is no data set 'own'"
    assert changed.unknown == f"{reason}{training.path} is another set, or was prepared differently"
    assert changed.seen == {"a"}


def test_a_published_file_records_nothing(write_images, images):
    with write_images(images) as prepared:
        leakage = find_leakage(prepared, "abc", recorded=None, open_training_set=never)
    assert leakage.unknown == "the checkpoint does not record which images it was trained on"
    assert (leakage.leaks, leakage.seen, leakage.counts()) == ((), frozenset(), {})
