"""Images of folders, zip files and lists: all found, each with results of its own, and none that stops the others."""

import errno
import os

import numpy as np
import pytest

from mhsvm.inference import image_folder
from mhsvm.inference.found_images import open_images
from mhsvm.inference.image_folder import predict_images
from mhsvm.inference.prediction_folder import PredictionFolder
from mhsvm.inference.predictor import Prediction


class DarkIsLesion:
    """A predictor of dark pixels, which cannot take images of 13 columns."""

    threshold = 0.5

    def predict_batch(self, images):
        if any(image.shape[1] == 13 for image in images):
            raise RuntimeError("13 columns")
        return [Prediction((image[..., 0] < 99).astype(np.uint8), np.float32(image[..., 0] < 99)) for image in images]


def predict(source, out):
    with open_images([source]) as images:
        folder = PredictionFolder(out, {})
        failed = predict_images(DarkIsLesion(), images.images, folder, num_classes=1, batch_size=4)
    return failed, folder


def test_a_crash_in_one_image_is_reported_for_it_alone(lay_out, picture, tmp_path):
    images = {f"{name}.png": picture(seed, width=13 if name == "c" else 20) for seed, name in enumerate("abcde")}
    folder = lay_out({**images, "f.png": b"no image"})
    (folder / "g.png").symlink_to(folder / "absent.png")
    failed, results = predict(folder, tmp_path / "out")
    assert [line.removeprefix(f"{folder}/").partition(":")[0] for line in sorted(failed)] == ["c.png", "f.png", "g.png"]
    assert f"{folder}/c.png: RuntimeError: 13 columns" in failed
    assert sorted(results.done) == ["a.png", "b.png", "d.png", "e.png"]
    assert len((tmp_path / "out/areas.csv").read_text().splitlines()) == 5


def test_a_file_that_cannot_be_written_is_one_image_and_a_full_disk_is_all(lay_out, picture, tmp_path, monkeypatch):
    folder = lay_out({f"{name}.png": picture() for name in "abc"})
    write = image_folder.PredictionFolder.write

    def fail(code):
        def failing(self, image, **arguments):
            if image == "b.png":
                raise OSError(code, os.strerror(code))
            return write(self, image, **arguments)

        return failing

    monkeypatch.setattr(image_folder.PredictionFolder, "write", fail(errno.ENAMETOOLONG))
    failed, results = predict(folder, tmp_path / "out")
    assert (len(failed), sorted(results.done)) == (1, ["a.png", "c.png"])
    monkeypatch.setattr(image_folder.PredictionFolder, "write", fail(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left on device"):
        predict(folder, tmp_path / "out")


def test_names_that_are_not_utf8_have_results_of_their_own(tmp_path, picture):
    folder = tmp_path / "own"
    folder.mkdir()
    for name, seed in ((b"caf\xe9.png", 0), (b"caf%E9.png", 1), ("café.png".encode(), 2)):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(picture(seed))
    failed, results = predict(folder, tmp_path / "out")
    assert failed == []
    assert len(list((tmp_path / "out/masks").iterdir())) == 3
    assert len(results.done) == 3
    text = (tmp_path / "out/areas.csv").read_text(encoding="utf-8")
    assert len(text.splitlines()) == 4
    again, results = predict(folder, tmp_path / "out")
    assert (again, len(results.done)) == ([], 3)


def test_members_of_zip_files_are_done_once(pack, picture, tmp_path):
    archive = pack({"a.png": picture(0), "b.png": picture(1)})
    predict(archive, tmp_path / "out")
    before = (tmp_path / "out/masks/a.png").stat().st_mtime_ns
    # packed again, with one other image
    pack({"a.png": picture(0), "b.png": picture(2)})
    with open_images([archive]) as images:
        folder = PredictionFolder(tmp_path / "out", {})
        done = [folder.is_done(image.image, name=image.name, file=image.file) for image in images.images]
    assert done == [True, False]
    predict(archive, tmp_path / "out")
    assert (tmp_path / "out/masks/a.png").stat().st_mtime_ns == before
