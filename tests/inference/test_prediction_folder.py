"""A folder of predictions: begun once, gone on with, never mixed."""

from pathlib import PurePath

import numpy as np
import pytest

from mhsvm.inference.prediction_folder import PredictionFolder

SETTINGS = {"threshold": 0.5, "checkpoints": ("a.pt",), "tta": "none"}


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"an image")
    return path


def write(folder, source, image="a.png", name="a"):
    mask = np.zeros((8, 10), np.uint8)
    mask[2:5, 3:7] = 1
    record = folder.write(
        image,
        name=PurePath(name),
        source=source,
        pixels=np.full((8, 10, 3), 200, np.uint8),
        mask=mask,
        num_classes=1,
        areas={"1": {"pixels": 12, "share": 0.15, "regions": 1}},
    )
    folder.add(record)


def test_what_is_done_is_known_to_the_next(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    assert not folder.is_done("a.png", name=PurePath("a"), source=source)
    write(folder, source)
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert again.is_done("a.png", name=PurePath("a"), source=source)
    source.write_bytes(b"another image")
    assert not again.is_done("a.png", name=PurePath("a"), source=source)


def test_the_last_record_of_an_image_counts(tmp_path, source):
    folder = PredictionFolder(tmp_path / "out", SETTINGS)
    write(folder, source)
    source.write_bytes(b"another image")
    write(folder, source)
    again = PredictionFolder(tmp_path / "out", SETTINGS)
    assert again.is_done("a.png", name=PurePath("a"), source=source)
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
    for path in (tmp_path, source):
        with pytest.raises(FileExistsError, match="exists and is not empty: choose another one with `folder`"):
            PredictionFolder(path, SETTINGS)
    (tmp_path / "empty").mkdir()
    assert PredictionFolder(tmp_path / "empty", SETTINGS).done == {}
