"""One walk over folders, zip files, single files and lists, which loses no file without a word."""

import os

import pytest

from mhsvm.prepare.problems import Problems
from mhsvm.prepare.walk import open_sources


def walk(*sources):
    """Names, what is left out, and the message about what is wrong ("" if nothing is)."""
    problems = Problems()
    with open_sources(list(sources), problems) as files:
        names = [file.name for file in files]
    try:
        problems.raise_if_any("wrong:")
    except ValueError as error:
        return names, problems.left_out(), str(error)
    return names, problems.left_out(), ""


def test_hidden_folders_are_not_entered(lay_out):
    names = [
        "b.png",
        ".ipynb_checkpoints/a.png",
        ".thumbnails/x/b.png",
        "x/@eaDir/c.png",
        "$RECYCLE.BIN/d.png",
        "a/z.png",
    ]
    assert walk(lay_out(dict.fromkeys(names, b""))) == (["own/b.png", "own/a/z.png"], [], "")


@pytest.mark.parametrize(
    "marks",
    [
        ["settings.json", "predictions.jsonl"],
        ["summary.json", "cases.csv"],
        ["config.yaml", "split.txt"],
        ["pairs.csv", "pairs-1.png"],
    ],
)
def test_results_of_this_program_are_no_images(lay_out, marks):
    folder = lay_out({"a.png": b"", **{f"x/out/{name}": b"" for name in [*marks, "masks/a.png"]}})
    names, left_out, wrong = walk(folder)
    assert (names, wrong) == (["own/a.png"], "")
    results = "folders of results of this program, read only if given themselves"
    assert left_out == [f"1 {results}, such as {folder / 'x/out'}"]
    # given itself, it is read
    assert "out/masks/a.png" in walk(folder / "x/out")[0]


def test_what_is_left_out_is_counted_by_kind(lay_out):
    names = ["a.png", "b.svg", "c.svg", "d.nii.gz", "e.tar.gz", "a_superpixels.png", "notes.txt", "t.csv", "m.json"]
    kept, left_out, _ = walk(lay_out(dict.fromkeys(names, b"")))
    assert left_out == [
        "1 .nii.gz images, a format that is not read, such as own/d.nii.gz",
        "2 .svg images, a format that is not read, such as own/b.svg",
        "1 .tar.gz archives, which are not read, such as own/e.tar.gz",
        "1 images of superpixels, such as own/a_superpixels.png",
    ]
    assert "own/a_superpixels.png" not in kept


def test_images_without_an_ending_are_counted(lay_out, picture):
    folder = lay_out({"IM0001": bytes(128) + b"DICM", "IM0002": picture(), "README": b"text", "a.png": picture()})
    assert walk(folder)[1] == ["2 images without an ending in their names, such as own/IM0001"]
    assert walk(folder / "IM0002") == (["own/IM0002"], [], "")


@pytest.mark.parametrize("packed", [False, True])
def test_images_with_an_unknown_ending_are_counted(lay_out, pack, picture, packed):
    odd = {"a.jpg_large": picture(format="JPEG"), "b.png~": picture(), "c.bak": picture(format="BMP"), "d": picture()}
    files = {"a.png": picture(), "notes.md": b"BM, II and MM", "x.bin": bytes(200), **odd}
    name = "own.zip" if packed else "own"
    assert walk(pack(files, name) if packed else lay_out(files))[1:] == (
        [
            f"3 images with an unknown ending in their names, such as {name}/a.jpg_large",
            f"1 images without an ending in their names, such as {name}/d",
        ],
        "",
    )


def test_packed_results_are_no_images(pack):
    results = {f"x/out/{name}": b"" for name in ("settings.json", "predictions.jsonl", "masks/a.png")}
    names, left_out, wrong = walk(pack({"a.png": b"", **results}, "own.zip"))
    kind = "folders of results of this program, read only if given themselves"
    assert (names, left_out, wrong) == (["own.zip/a.png"], [f"1 {kind}, such as own.zip/x/out"], "")
    # packed alone, they are given themselves
    assert "out.zip/x/out/masks/a.png" in walk(pack(results, "out.zip"))[0]


def test_a_folder_is_read_under_its_own_name_before_links_to_it(lay_out):
    folder = lay_out({"images/a.png": b"", "masks/a.png": b""})
    (folder / "all").symlink_to("images")
    (folder / "masks/up").symlink_to("..")
    names, left_out, wrong = walk(folder)
    assert (sorted(names), wrong) == (["own/images/a.png", "own/masks/a.png"], "")
    assert left_out == [f"2 links to folders that are read already, such as {folder / 'all'}"]


def test_single_files_have_the_name_of_their_folder(lay_out):
    folder = lay_out({"train/images/a.png": b"", "train/masks/a.png": b"", "val/masks/b.png": b""})
    assert walk(folder / "train/images/a.png")[0] == ["images/a.png"]
    files = [folder / "train/images/a.png", folder / "train/masks/a.png"]
    assert walk(*files)[0] == ["train/images/a.png", "train/masks/a.png"]
    assert walk(*files, folder / "val/masks/b.png")[0] == [
        "own/train/images/a.png",
        "own/train/masks/a.png",
        "own/val/masks/b.png",
    ]


def test_lists_of_files(lay_out, pack, tmp_path, monkeypatch):
    folder = lay_out({"images/a\u2028b.png": b"", "more/c.png": b"", "d.png": b""})
    archive = pack({"e.png": b""})
    (folder / "list.txt").write_bytes(
        "\ufeffimages/a\u2028b.png\r\n\nmore\nimages/a\u2028b.png\n".encode() + os.fsencode(archive)
    )
    names, _, wrong = walk(folder / "list.txt")
    assert (names, wrong) == (["images/a\u2028b.png", "more/c.png", "own.zip/e.png"], "")
    # where the folder of the list has no such file, paths start at the working folder
    monkeypatch.chdir(folder)
    (tmp_path / "other.lst").write_text("d.png\n")
    assert walk(tmp_path / "other.lst")[0] == ["own/d.png"]


def test_lists_with_errors(lay_out):
    folder = lay_out({"a.png": b"", "list.txt": b"a.png\nabsent.png\n", "empty.txt": b"\n", "no.txt": b"a\0b"})
    assert f"no such file or folder: 1\n    {folder / 'absent.png'}\n" in walk(folder / "list.txt")[2]
    assert "empty.txt: no path in it" in walk(folder / "empty.txt")[2]
    assert "list of files that cannot be read: 1" in walk(folder / "no.txt")[2]


def test_every_file_is_listed_once(lay_out, pack):
    folder = lay_out({"images/a.png": b""})
    archive = pack({"b.png": b""}, name="own/b.zip")
    names = walk(folder, folder / "images", folder / "images/a.png", archive)[0]
    assert names == ["b.zip/b.png", "own/images/a.png"]


def test_names_that_are_not_utf8_are_text(tmp_path):
    folder = tmp_path / "own"
    folder.mkdir()
    os.close(os.open(os.fsencode(folder) + b"/caf\xe9.png", os.O_CREAT | os.O_WRONLY))
    with open_sources([folder], Problems()) as files:
        (file,) = files
        assert file.name == "own/caf%E9.png"
        assert file.read() == b""


def test_a_named_pipe_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with open_sources([tmp_path], Problems()) as files:
        (file,) = files
        with pytest.raises(ValueError, match="not a file"):
            file.read()


def test_a_download_that_is_not_complete_is_a_problem(lay_out):
    folder = lay_out(
        dict.fromkeys(["a.png", "x.zip.partial", "x.zip.partial.json", "y.csv.crdownload", "z.partial"], b"")
    )
    names, _, wrong = walk(folder)
    assert names == ["own/a.png", "own/x.zip.partial.json", "own/z.partial"]
    message = "download that is not complete: 2\n    {0}/x.zip.partial\n    {0}/y.csv.crdownload\n    fix: finish it"
    assert message.format(folder) in wrong
    assert "download that is not complete: 1" in walk(folder / "x.zip.partial")[2]
