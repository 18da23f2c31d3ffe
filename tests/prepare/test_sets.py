"""A set by name, by path, and a folder that is used as it is."""

import os
from pathlib import Path

import pytest

from mhsvm.prepare import pipeline, sets
from mhsvm.prepare.pipeline import prepare_set
from mhsvm.prepare.sets import find_set, open_set, require_size


@pytest.fixture
def ready_split(lay_out, picture, lesion):
    """A folder train|val/images|masks with one pair each."""
    files = {}
    for seed, subset in enumerate(["train", "val"]):
        files[f"{subset}/images/{seed}.png"] = picture(seed)
        files[f"{subset}/masks/{seed}_mask.png"] = lesion(seed)
    return lay_out(files, name="mine")


def test_find_set(tmp_path):
    root = tmp_path / "data"
    for folder in ("both", "folder", "hidden"):
        (root / folder).mkdir(parents=True)
    for file in ("both.h5", "file.h5", "notes.txt"):
        (root / file).touch()
    assert find_set("both", root) == root / "both.h5"
    assert find_set("file", root) == root / "file.h5"
    assert find_set("folder", root) == root / "folder"
    assert find_set(root / "file.h5", root) == root / "file.h5"
    assert find_set(str(tmp_path), root) == tmp_path
    with pytest.raises(
        FileNotFoundError, match=r"no data set 'isic': .* In .*data/: both, both\.h5, file\.h5, folder, hid"
    ):
        find_set("isic", root)
    with pytest.raises(FileNotFoundError, match=r"In .*absent/: no sets\. Make one with `mhsvm prepare`"):
        find_set("isic", tmp_path / "absent")


def test_a_path_with_a_folder_part_is_taken_literally(ready_split, monkeypatch):
    root = ready_split.parent
    prepare_set("folder", [ready_split], root / "mine.h5", size=16)
    for path in (ready_split, f"{ready_split}/", str(ready_split)):
        assert find_set(path, root / "data") == ready_split
    monkeypatch.chdir(root)
    assert find_set("./mine") == find_set("mine/") == find_set("mine") == Path("mine")
    (root / "data").mkdir()
    (root / "mine.h5").rename(root / "data" / "mine.h5")
    # a bare name is in data/ first
    assert find_set("mine") == Path("data/mine.h5")
    assert find_set("./mine") == Path("mine")
    assert find_set("data/mine") == Path("data/mine.h5")


@pytest.mark.parametrize("digest", [True, False])
def test_a_name_of_two_sets_is_ambiguous(ready_split, picture, lesion, monkeypatch, digest):
    root, file = ready_split.parent, ready_split.parent / "mine.h5"
    if not digest:
        # a set of an older version records no digest of its files
        monkeypatch.setattr(pipeline, "pairs_digest", lambda pairs: "")
    # given as its parts, or as it is: the same files
    prepare_set("folder", [ready_split / "val", ready_split / "train"], file, size=16)
    monkeypatch.undo()
    assert find_set("mine", root) == file
    (ready_split / "val" / "images" / "2.png").write_bytes(picture(2))
    (ready_split / "val" / "masks" / "2.png").write_bytes(lesion(2))
    with pytest.raises(ValueError, match="different sets of one name: the file holds 2 images and was not") as caught:
        find_set("mine", root)
    message = str(caught.value)
    assert f"from the 3 that the folder holds now. Prepare it again, or name one by its path, {file} or" in message
    assert find_set(ready_split, root) == ready_split
    assert find_set(file, root) == file


def test_another_size_than_that_of_the_set(ready_split):
    with open_set(ready_split, size=16) as prepared:
        require_size(prepared, None, setting="x")
        require_size(prepared, (16, 16), setting="x")
        with pytest.raises(ValueError, match=r"x is 16 x 12 and .*h5 holds images of 16 x 16 .*: leave x out"):
            require_size(prepared, (16, 12), setting="x")


def test_folder_is_prepared_once(ready_split, monkeypatch):
    with open_set(ready_split, size=16) as prepared:
        assert (prepared.name, prepared.ids, prepared.subsets) == ("mine", ("0", "1"), ("train", "val"))
        assert prepared.path == ready_split / ".mhsvm-16.h5"
        checksum = prepared.checksum
    monkeypatch.setattr(sets, "prepare_set", lambda *_, **__: pytest.fail("prepared again"))
    with open_set(ready_split, size=16) as again, open_set(ready_split / ".mhsvm-16.h5") as by_path:
        assert again.checksum == by_path.checksum == checksum


def test_folder_is_prepared_again_when_it_changed(ready_split, picture, lesion):
    first = open_set(ready_split, size=16).checksum
    image = ready_split / "val" / "images" / "1.png"
    image.write_bytes(picture(seed=5))
    os.utime(image, ns=(1, 1))
    second = open_set(ready_split, size=16).checksum
    assert second != first
    (ready_split / "val" / "images" / "2.png").write_bytes(picture(seed=2))
    (ready_split / "val" / "masks" / "2.png").write_bytes(lesion(seed=2))
    assert open_set(ready_split, size=16).ids == ("0", "1", "2")


def test_sizes_and_classes_have_files_of_their_own(ready_split, lesion):
    for mask in ready_split.glob("*/masks/*"):
        mask.write_bytes(lesion(level=1))
    open_set(ready_split, size=16).close()
    assert open_set(ready_split, size=(16, 12)).size == (16, 12)
    assert open_set(ready_split, size=16, num_classes=2).num_classes == 2
    assert {path.name for path in ready_split.glob(".mhsvm*")} == {
        ".mhsvm-16.h5",
        ".mhsvm-16x12.h5",
        ".mhsvm-16-2-classes.h5",
    }


def test_damaged_cache_is_made_again(ready_split):
    path = open_set(ready_split, size=16).path
    path.write_bytes(b"damaged")
    assert len(open_set(ready_split, size=16)) == 2


def test_folder_that_cannot_be_written_to(ready_split, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: not (path == ready_split and mode == os.W_OK))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = open_set(ready_split, size=16).path
    assert path.is_relative_to(tmp_path / "cache" / "mhsvm")
    assert path.name == "mhsvm-16.h5"
    assert list(ready_split.glob(".mhsvm*")) == []


def test_folder_and_cache_that_cannot_be_written_to(ready_split, monkeypatch, tmp_path):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    with pytest.raises(
        PermissionError, match="neither it nor .*cache.* can be written to: prepare it .*XDG_CACHE_HOME"
    ):
        open_set(ready_split, size=16)
    assert not (tmp_path / "cache").exists()


def test_folder_with_problems(ready_split):
    (ready_split / "val" / "masks" / "1_mask.png").unlink()
    with pytest.raises(ValueError, match=r"image without a mask: 1\n    1: mine/val/images/1\.png"):
        open_set(ready_split, size=16)


def test_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_set(tmp_path / "absent")


def test_a_folder_that_was_decoded_otherwise_is_prepared_again(ready_split, monkeypatch):
    source = ready_split
    with open_set(source, size=16) as prepared:
        path = prepared.path
    before = path.stat().st_mtime_ns
    open_set(source, size=16).close()
    assert path.stat().st_mtime_ns == before
    monkeypatch.setattr(sets, "_DECODING", "decoding 3\n")
    open_set(source, size=16).close()
    assert path.stat().st_mtime_ns != before


def test_a_broken_link_in_a_folder_is_named(ready_split, tmp_path):
    source = ready_split
    (source / "val/images/1.png").unlink()
    (source / "val/images/1.png").symlink_to(tmp_path / "absent.png")
    with pytest.raises(ValueError, match=r"unreadable file: 1\n    mine/val/images/1\.png: "):
        open_set(source, size=16)


def test_files_that_are_left_out_of_a_folder_are_counted(ready_split, capsys):
    source = ready_split
    (source / "a.psd").touch()
    open_set(source, size=16).close()
    noted = f"{source}: left out: 1 .psd images, a format that is not read, such as mine/a.psd"
    assert noted in capsys.readouterr().err


def test_official_files_of_another_task_and_notes_are_shown_once_beside_the_progress(ready_split, picture, capsys):
    source = ready_split
    (source / "val/images/1.png").write_bytes((source / "train/images/0.png").read_bytes())
    other = source / "ISIC2018_Task2_Training_GroundTruth_v3"
    other.mkdir()
    (other / "ISIC_0000000_attribute_streaks.png").write_bytes(picture())
    open_set(source, size=16).close()
    lines = capsys.readouterr().err.splitlines()
    assert f"{source}: left out: 1 images and masks of ISIC 2018 task2" in lines
    (note,) = (line for line in lines if ": note: images that are one file: " in line)
    assert "0 (train) and 1 (val) with different masks (Dice " in note
    open_set(source, size=16).close()
    assert capsys.readouterr().err == ""
