"""Images of folders, zip files and lists: all found, each with results of its own, and none that stops the others."""

import errno
import os
from pathlib import PurePath

import numpy as np
import pytest

from mhsvm.inference import image_folder
from mhsvm.inference.image_folder import open_images, predict_images
from mhsvm.inference.prediction_folder import PredictionFolder
from mhsvm.inference.predictor import Prediction


class DarkIsLesion:
    """A predictor of dark pixels, which cannot take images of 13 columns."""

    threshold = 0.5

    def predict_batch(self, images):
        if any(image.shape[1] == 13 for image in images):
            raise RuntimeError("13 columns")
        return [Prediction((image[..., 0] < 99).astype(np.uint8), np.float32(image[..., 0] < 99)) for image in images]


def found(*sources):
    with open_images(list(sources)) as images:
        return [(image.image, image.name) for image in images.images]


def predict(source, out):
    with open_images([source]) as images:
        folder = PredictionFolder(out, {})
        failed = predict_images(DarkIsLesion(), images.images, folder, num_classes=1, batch_size=4)
    return failed, folder


def test_paths_in_folders_zip_files_and_lists(lay_out, pack, picture):
    folder = lay_out({"b.png": picture(), "sub/a.webp": picture(), "notes.md": b"", "list.txt": b"sub/a.webp\nb.png"})
    assert found(folder) == [("b.png", PurePath("b")), ("sub/a.webp", PurePath("sub/a"))]
    assert found(folder / "sub/a.webp") == [("a.webp", PurePath("a"))]
    assert found(folder / "list.txt") == found(folder)
    archive = pack({"x/c.png": picture()})
    assert found(archive) == [("x/c.png", PurePath("x/c"))]
    assert found(folder / "sub", archive) == [
        ("own/sub/a.webp", PurePath("own/sub/a")),
        ("own.zip/x/c.png", PurePath("own.zip/x/c")),
    ]
    pack({"d.png": picture()}, name="own/sub/in.zip")
    assert [image for image, _ in found(folder)] == ["b.png", "sub/a.webp", "sub/in.zip/d.png"]


def test_a_file_without_an_ending_that_is_given_is_an_image(lay_out, picture):
    folder = lay_out({"scan": picture(), "a.png": picture()})
    assert [image for image, _ in found(folder)] == ["a.png"]
    assert found(folder / "scan") == [("scan", PurePath("scan"))]


def test_formats_that_are_not_read_and_unsound_archives_are_named(lay_out, picture):
    folder = lay_out({"a.png": picture(), "b.svg": b"", "c.svg": b"", "d.cr2": b"", "e.zip": b"no zip", "f.tar": b""})
    with open_images([folder]) as images:
        assert images.num_unread == 3
        assert [line.partition(" images")[0] for line in images.unread] == ["1 .cr2", "2 .svg"]
        assert images.unsound[0] == "  not a zip file, or a truncated one: 1"
        assert images.left_out == ["1 .tar archives, which are not read, such as own/f.tar"]
    (folder / "a.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"there is no image in .*\n  left out: 1 \.cr2 images"):
        found(folder)


def test_lists_with_missing_files_are_refused_at_once(lay_out, picture):
    folder = lay_out({"a.png": picture(), "list.txt": b"a.png\nb.png\nc.png\n"})
    with pytest.raises(ValueError, match="nothing was segmented:\n  no such file or folder: 2"):
        found(folder / "list.txt")


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
