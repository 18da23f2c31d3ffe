"""Images of folders, zip files and lists are all found, and all others are named."""

from pathlib import PurePath

import pytest

from mhsvm.inference.found_images import open_images


def found(*sources):
    with open_images(list(sources)) as images:
        return [(image.image, image.name) for image in images.images]


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
