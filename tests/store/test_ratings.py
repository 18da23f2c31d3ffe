"""Masks of several raters in a prepared set."""

import h5py
import numpy as np
import pytest

from mhsvm.store import PreparedSet, Rating, Sample, write_set

SIZE = (4, 6)


def mask(level):
    return np.full(SIZE, level, np.uint8)


def make(path, *ratings, raters=("x", "y", "z")):
    samples = [
        Sample(f"i{row}", np.full((*SIZE, 3), row, np.uint8), mask(9), SIZE, ratings=own)
        for row, own in enumerate(ratings)
    ]
    return write_set(
        path, samples, name="s", size=SIZE, num_classes=1, attributes={}, total=len(samples), raters=raters
    )


def test_ragged_masks_come_back(tmp_path):
    make(tmp_path / "s.h5", (Rating("y", mask(2), "t1", "s2"), Rating("x", mask(1))), (), (Rating("z", mask(3)),))
    with PreparedSet.open(tmp_path / "s.h5") as prepared:
        ratings = prepared.ratings
        assert len(ratings) == 3
        assert (ratings.rows.tolist(), ratings.numbers.tolist()) == ([0, 0, 2], [0, 1, 2])
        assert (ratings.tools, ratings.skills) == (("", "t1", ""), ("", "s2", ""))
        assert [ratings.num_of(row) for row in range(3)] == [2, 0, 1]
        assert ratings.places(2).tolist() == [2]
        assert {name: int(own[0, 0]) for name, own in ratings.of(0).items()} == {"x": 1, "y": 2}
        assert ratings.of(1) == {}
        assert ratings.masks([2, 0])[:, 0, 0].tolist() == [3, 1]
        assert (prepared.masks([0])[0] == 9).all()


def test_the_checksum_covers_raters_and_is_unchanged_without(tmp_path):
    first = make(tmp_path / "a.h5", (Rating("x", mask(1)),))
    assert make(tmp_path / "b.h5", (Rating("x", mask(2)),)) != first
    assert make(tmp_path / "b.h5", (Rating("y", mask(1)),)) != first
    plain = make(tmp_path / "c.h5", (), raters=())
    assert plain == "f12a8d25af0f63b35c813f3b6c2b8dd777b378b05dbb04c40349d5326915c303"
    assert plain != first
    with h5py.File(tmp_path / "c.h5") as file:
        assert sorted(file) == [
            "attributes",
            "checksums",
            "groups",
            "ids",
            "images",
            "masks",
            "original_sizes",
            "subsets",
        ]


def test_a_damaged_mask_of_a_rater_is_named(tmp_path):
    make(tmp_path / "s.h5", (Rating("x", mask(1)), Rating("y", mask(2))))
    with h5py.File(tmp_path / "s.h5") as file:
        chunk = file["rater_masks"].id.get_chunk_info_by_coord((1, 0, 0))
    content = bytearray((tmp_path / "s.h5").read_bytes())
    content[chunk.byte_offset + chunk.size - 3] ^= 1
    (tmp_path / "s.h5").write_bytes(content)
    with PreparedSet.open(tmp_path / "s.h5") as prepared:
        assert prepared.ratings.masks([0])[0, 0, 0] == 1
        with pytest.raises(ValueError, match=r"rater_masks of i0 by y \(row 1\) in .* is truncated or damaged"):
            prepared.ratings.masks([1])


@pytest.mark.parametrize(
    ("ratings", "message"),
    [
        ((Rating("x", mask(1)), Rating("x", mask(2))), "one mask at most of each of the raters x, y, z"),
        ((Rating("w", mask(1)),), "received masks of w"),
        ((Rating("x", mask(1)[1:]),), r"the mask by x of 'i0' must be uint8 \(4, 6\)"),
    ],
)
def test_ratings_that_do_not_fit(tmp_path, ratings, message):
    with pytest.raises(ValueError, match=message):
        make(tmp_path / "s.h5", ratings)
    assert list(tmp_path.iterdir()) == []
