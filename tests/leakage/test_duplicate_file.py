"""Near-duplicates are searched once per set, and again after a change of the set, the search or the file."""

import json

import pytest

from mhsvm.leakage import duplicate_file
from mhsvm.leakage.duplicate_file import duplicate_groups, search_duplicates
from mhsvm.synthetic import generate_sample


@pytest.fixture
def searches(monkeypatch):
    """How many images each search that was really done has looked at."""
    done = []

    def counted(*columns, **original_sizes):
        done.append(sum(map(len, columns[1::2])))
        return search(*columns, **original_sizes)

    search = duplicate_file.find_duplicates
    monkeypatch.setattr(duplicate_file, "find_duplicates", counted)
    return done


@pytest.fixture
def images(scenes, brighter):
    return {"a": scenes[0], "b": scenes[1], "c": brighter(scenes[0]), "d": scenes[2]}


def ids_of(pairs):
    return [(pair.id_a, pair.id_b) for pair in pairs]


def test_a_search_is_kept_beside_the_set(write_images, images, searches, tmp_path):
    with write_images(images) as prepared:
        first = search_duplicates(prepared)
        assert ids_of(first) == [("a", "c")]
        assert search_duplicates(prepared) == first
    assert searches == [4]
    assert (tmp_path / ".own.duplicates.json").is_file()


def test_another_set_of_that_name_is_searched_again(write_images, images, scenes, searches):
    write_images(images).close()
    with write_images(images) as prepared:
        search_duplicates(prepared)
    with write_images({**images, "c": scenes[3]}) as prepared:
        assert search_duplicates(prepared) == []
    assert searches == [4, 4]


def test_another_version_searches_again(write_images, images, searches, monkeypatch):
    with write_images(images) as prepared:
        search_duplicates(prepared)
        monkeypatch.setattr(duplicate_file, "VERSION", duplicate_file.VERSION + 1)
        assert ids_of(search_duplicates(prepared)) == [("a", "c")]
    assert searches == [4, 4]


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"format": "mhsvm-duplicates"', None])
def test_a_damaged_file_is_made_again(write_images, images, searches, tmp_path, content):
    path = tmp_path / ".own.duplicates.json"
    with write_images(images) as prepared:
        search_duplicates(prepared)
        if content is None:
            kept = json.loads(path.read_text())
            del kept["pairs"]
            content = json.dumps(kept)
        path.write_text(content)
        assert ids_of(search_duplicates(prepared)) == [("a", "c")]
        assert ids_of(search_duplicates(prepared)) == [("a", "c")]
    assert searches == [4, 4]


def test_two_sets_have_a_file_of_their_own(write_images, images, scenes, brighter, searches):
    with write_images(images) as one, write_images({"a": scenes[4], "z": brighter(scenes[2])}, "other") as other:
        for _ in range(2):
            assert ids_of(search_duplicates(one, other)) == [("d", "z")]
            assert ids_of(search_duplicates(one)) == [("a", "c")]
    assert searches == [6, 4]


def test_the_users_cache_is_taken_where_a_folder_is_read_only(write_images, images, searches, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("mhsvm.files.os.access", lambda path, mode: False)
    with write_images(images) as prepared:
        for _ in range(2):
            assert ids_of(search_duplicates(prepared)) == [("a", "c")]
    assert searches == [4]
    assert len(list((tmp_path / "cache/mhsvm").rglob("own.duplicates.json"))) == 1


def test_pairs_are_found_where_nothing_can_be_kept(write_images, images, searches, tmp_path, monkeypatch, caplog):
    (tmp_path / "home").write_text("a file, in which no folder can be made")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("mhsvm.files.os.access", lambda path, mode: False)
    with write_images(images) as prepared:
        for _ in range(2):
            assert ids_of(search_duplicates(prepared)) == [("a", "c")]
    assert searches == [4, 4]
    assert "cannot be kept in" in caplog.text
    assert "set XDG_CACHE_HOME to a folder that can be written" in caplog.text


def test_groups_join_near_duplicates_and_given_groups(write_images, images):
    with write_images(images) as prepared:
        assert duplicate_groups(prepared) == ("like a", "", "like a", "")
    with write_images(images, groups=["", "", "patient", "patient"]) as prepared:
        assert duplicate_groups(prepared) == ("patient", "", "patient", "patient")


def test_small_images_are_warned_of(write_images, scenes, caplog):
    with write_images({"a": scenes[0], "b": scenes[1]}) as prepared:
        search_duplicates(prepared)
    assert "own.h5 are small, 96 x 96: below 128 pixels some similar images" in caplog.text
    caplog.clear()
    large = {
        "a": generate_sample(seed=1, index=0, size=(128, 160))[0],
        "b": generate_sample(seed=1, index=1, size=(128, 160))[0],
    }
    with write_images(large, "large") as prepared:
        search_duplicates(prepared)
    # the folder of this test is called small, and an earlier test may have let information through
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []
