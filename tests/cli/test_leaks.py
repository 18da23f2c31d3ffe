"""`mhsvm leaks`: which images a set holds twice, and which of them a split tears apart."""

import csv

import numpy as np
import pytest

from mhsvm.cli import leaks as command
from mhsvm.cli.main import run
from mhsvm.store import Sample, write_set
from mhsvm.synthetic import generate_sample


@pytest.fixture
def make_scenes(workplace):
    """Write data/NAME.h5 with synthetic lesions, one for each index; a negative one is taken in other light."""

    def make(name, indices):
        samples = []
        for id_, index in indices.items():
            image = generate_sample(seed=5, index=abs(index), size=(64, 64))[0]
            image = np.clip(image * [0.9, 1.05, 1.1], 0, 255).astype(np.uint8) if index < 0 else image
            samples.append(Sample(id_, image, np.zeros((64, 64), np.uint8), (64, 64)))
        path = workplace / f"data/{name}.h5"
        write_set(path, samples, name=name, size=(64, 64), num_classes=1, attributes={}, total=len(samples))

    return make


def rows_of(path):
    with path.open() as file:
        return [(row["kind"], row["id_a"], row["id_b"]) for row in csv.DictReader(file)]


def test_inside_a_set(workplace, make_scenes, capsys):
    make_scenes("own", {"a": 1, "b": 2, "c": -1, "d": 2, "e": 3})
    assert command.main(["own"]) == 0
    folder = workplace / "results/leaks/own"
    assert rows_of(folder / "pairs.csv") == [("same pixels", "b", "d"), ("near-duplicate", "a", "c")]
    assert sorted(path.name for path in folder.iterdir()) == ["pairs-1.png", "pairs.csv"]
    printed = capsys.readouterr().out
    assert "own (data/own.h5): 5 images, checksum " in printed
    assert "2 pairs by kind: same pixels 1, near-duplicate 1" in printed
    # again, from what was kept
    assert command.main(["own"]) == 0
    assert "looking for near-duplicates" not in capsys.readouterr().out


def test_between_two_sets(workplace, make_scenes, capsys):
    make_scenes("own", {"a": 1, "b": 2, "c": 3})
    make_scenes("other", {"a": 4, "b": 2, "z": -3})
    assert command.main(["own", "data/other.h5", "--out", "found"]) == 0
    assert rows_of(workplace / "found/pairs.csv") == [
        ("same id", "b", "b"),
        ("near-duplicate", "c", "z"),
        ("same id, another picture", "a", "a"),
    ]
    assert "3 pairs by kind: same id 1, near-duplicate 1, same id, another picture 1" in capsys.readouterr().out


def test_what_a_split_tears_apart(workplace, make_scenes, capsys):
    make_scenes("own", {"a": 1, "b": 2, "c": -1, "d": -2, "e": 3})
    (workplace / "split.txt").write_text("a\ttrain\nb\ttrain\nc\ttest\nd\ttrain\ne\tval\n")
    assert command.main(["own", "--split", "file:split.txt", "--out", "found"]) == 0
    printed = capsys.readouterr().out
    assert "train -> test: 1 of 1 test images have a counterpart\n  c is like a (near-duplicate, " in printed
    assert "val -> test: 0 of 1 test images have a counterpart" in printed
    assert rows_of(workplace / "found/train-test.csv") == [("near-duplicate", "a", "c")]
    assert rows_of(workplace / "found/val-test.csv") == []


def test_nothing_is_found(workplace, make_scenes, capsys):
    make_scenes("own", {"a": 1, "b": 2})
    assert command.main(["own"]) == 0
    assert "\nno pairs\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["absent"], "there is no data set 'absent'"),
        (["own", "absent"], "there is no data set 'absent'"),
        (["own", "own", "--split", "all"], "--split names the parts of one set: omit it"),
        (["own", "--split", "thirds"], "unknown split 'thirds'"),
        (["own", "--size", "32"], "--size is 32 x 32 and data/own.h5 holds images of 64 x 64"),
        (["own", "--out", "full"], "full exists and is not the folder of a search: choose another one with --out"),
    ],
)
def test_what_a_user_can_do_wrong(workplace, make_scenes, capsys, options, message):
    make_scenes("own", {"a": 1, "b": 2})
    (workplace / "full").mkdir()
    (workplace / "full/notes.txt").write_text("mine")
    assert run(command.main, options) == 2
    assert capsys.readouterr().err.startswith(f"error: {message}")
    assert not (workplace / "results").exists()
