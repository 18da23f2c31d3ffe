"""A folder of predictions: begun once, gone on with, never mixed."""

import errno
from pathlib import Path, PurePath

import numpy as np
import pytest

from mhsvm.inference.prediction_folder import PredictionFolder, write_complete
from mhsvm.prepare.archive import SourceFile

SETTINGS = {"threshold": 0.5, "checkpoints": ("a.pt",), "tta": "none"}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"an image")
    return SourceFile("a.png", 8, path)


def write(folder, source, image="a.png", name="a"):
    mask = np.zeros((8, 10), np.uint8)
    mask[2:5, 3:7] = 1
    record = folder.write(
        image,
        name=PurePath(name),
        state=source.state(),
        pixels=np.full((8, 10, 3), 200, np.uint8),
        mask=mask,
        num_classes=1,
        areas={"1": {"pixels": 12, "share": 0.15, "regions": 1}},
    )
    folder.add(record)


def test_what_is_done_is_known_to_the_next(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    assert not folder.is_done("a.png", name=PurePath("a"), file=source)
    write(folder, source)
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert again.is_done("a.png", name=PurePath("a"), file=source)
    source.location.write_bytes(b"another image")
    assert not again.is_done("a.png", name=PurePath("a"), file=source)


def test_the_last_record_of_an_image_counts(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    write(folder, source)
    source.location.write_bytes(b"another image")
    write(folder, source)
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert again.is_done("a.png", name=PurePath("a"), file=source)
    assert len((tmp_path / "out/predictions.jsonl").read_text().splitlines()) == 1


def test_the_table_has_the_images_that_are_done_in_their_order(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    for name in ("b", "a"):
        write(folder, source, image=f"{name}.png", name=name)
    folder.write_table(["a.png", "unreadable.png", "b.png"])
    assert (tmp_path / "out/areas.csv").read_text().splitlines() == [
        "image,width,height,class,pixels,share,regions",
        "a.png,10,8,1,12,0.15,1",
        "b.png,10,8,1,12,0.15,1",
    ]


def test_ids_of_any_script_are_kept(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    write(folder, source, image="皮膚 1.png", name="皮膚 1")
    assert (tmp_path / "out/masks/皮膚 1.png").is_file()
    assert "皮膚 1.png" in PredictionFolder(tmp_path / "out", SETTINGS).done


def test_other_settings_are_refused_and_all_of_them_named(tmp_path):
    PredictionFolder(tmp_path / "out", SETTINGS)
    with pytest.raises(ValueError, match="threshold 0.5, not 0.4; contours None, not True. Give the same to go on"):
        PredictionFolder(tmp_path / "out", {**SETTINGS, "threshold": 0.4, "contours": True})


def test_a_foreign_folder_is_left_alone(tmp_path, source):
    for path in (tmp_path, source.location):
        with pytest.raises(FileExistsError, match="exists and is not empty: choose another one with `folder`"):
            PredictionFolder(path, SETTINGS)
    (tmp_path / "empty").mkdir()
    assert PredictionFolder(tmp_path / "empty", SETTINGS).done == {}


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b""), lambda path: cut(path)])
@pytest.mark.parametrize("result", ["masks/a.png", "overlays/a.jpg"])
def test_results_that_are_missing_empty_or_short_are_not_done(tmp_path, source, result, damage):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    write(folder, source)
    damage(tmp_path / "out" / result)
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert not again.is_done("a.png", name=PurePath("a"), file=source)
    # also for a record of an older version, which does not list its results
    del again.done["a.png"]["results"]
    assert not again.is_done("a.png", name=PurePath("a"), file=source)


def cut(path):
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize(
    "line",
    [b'{"image": "a.p', b"\0\0\0", b"[1]", b'{"image": "a.png"}', b"\xff\xfe", b'{"image": "../x", "name": "a"}'],
)
def test_a_damaged_record_blocks_nothing(tmp_path, source, line):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    for name in ("a", "b", "c"):
        write(folder, source, image=f"{name}.png", name=name)
    records = tmp_path / "out/predictions.jsonl"
    lines = records.read_bytes().split(b"\n")
    records.write_bytes(b"\n".join([lines[0], line, *lines[2:]]))
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert (again.num_damaged, list(again.done)) == (1, ["a.png", "c.png"])
    # it is said once
    assert PredictionFolder(tmp_path / "out", SETTINGS).num_damaged == 0


def test_separators_of_lines_in_names_are_kept(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    write(folder, source, image="a\u2028b\x85.png", name="a\u2028b\x85")
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert again.is_done("a\u2028b\x85.png", name=PurePath("a\u2028b\x85"), file=source)


def test_a_file_that_cannot_be_finished_leaves_the_older_one(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    write_complete(path, b"older")

    def fail(self, content):
        Path(self).open("wb").close()
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="No space"):
        write_complete(path, b"newer")
    assert [each.name for each in tmp_path.iterdir()] == ["a.png"]
    assert path.read_bytes() == b"older"
