"""Folders and zip files look alike; archives that are unsound are named and not read."""

import os
import zipfile

import pytest

from mhsvm.prepare import archive
from mhsvm.prepare.archive import source_checksums
from mhsvm.prepare.problems import Problems
from mhsvm.prepare.walk import open_sources


def listed(*sources):
    """Names with contents, and the message about what is wrong ("" if nothing is)."""
    problems = Problems()
    with open_sources(list(sources), problems) as files:
        contents = {file.name: file.read() for file in files}
    try:
        problems.raise_if_any("wrong:")
    except ValueError as error:
        return contents, str(error)
    return contents, ""


def test_folders_zips_and_zips_in_folders(lay_out, pack, tmp_path):
    folder = lay_out({"images/a.png": b"1", "images/deep/b.png": b"2"})
    archive = pack({"images/c.png": b"3"}, name="other.zip")
    inside = pack({"d.png": b"4"}, name="own/masks.zip")
    contents, wrong = listed(folder, archive)
    assert contents == {
        "own/images/a.png": b"1",
        "own/images/deep/b.png": b"2",
        "other.zip/images/c.png": b"3",
        "masks.zip/d.png": b"4",
    }
    assert wrong == ""
    assert inside.exists()


def test_what_systems_leave_behind_is_skipped(lay_out, pack):
    files = dict.fromkeys(["a.png", ".DS_Store", "x/Thumbs.db", "__MACOSX/x/._a.png", "x/._a.png", ".cache/b.png"], b"")
    assert set(listed(lay_out(files))[0]) == {"own/a.png"}
    assert set(listed(pack(files))[0]) == {"own.zip/a.png"}


def test_backslashes_of_windows_programs(tmp_path):
    path = tmp_path / "own.zip"
    with zipfile.ZipFile(path, "w") as file:
        member = zipfile.ZipInfo("x")
        member.filename = "images\\a.png"
        file.writestr(member, b"1")
    assert listed(path) == ({"own.zip/images/a.png": b"1"}, "")


def test_links_are_followed_but_not_in_circles(lay_out, tmp_path):
    elsewhere = lay_out({"a.png": b"1"}, name="elsewhere")
    folder = lay_out({"b.png": b"2"})
    (folder / "images").symlink_to(elsewhere)
    (folder / "circle").symlink_to(folder)
    assert listed(folder) == ({"own/b.png": b"2", "own/images/a.png": b"1"}, "")


def test_missing_source_and_no_zip(tmp_path):
    (tmp_path / "text.zip").write_text("no zip")
    contents, wrong = listed(tmp_path / "absent", tmp_path / "text.zip")
    assert contents == {}
    assert f"no such file or folder: 1\n    {tmp_path / 'absent'}\n" in wrong
    assert f"not a zip file, or a truncated one: 1\n    {tmp_path / 'text.zip'}: File is not a zip file" in wrong


def test_truncated_zip(pack):
    path = pack({"a.png": os.urandom(1000)})
    path.write_bytes(path.read_bytes()[:-30])
    assert "not a zip file, or a truncated one: 1" in listed(path)[1]


@pytest.mark.parametrize("name", ["../a.png", "x/../../a.png", "/etc/a.png", "C:/a.png", "..\\a.png"])
def test_path_that_leaves_the_archive(pack, name):
    contents, wrong = listed(pack({name: b"1", "b.png": b"2"}))
    assert contents == {"own.zip/b.png": b"2"}
    assert "path that leaves the archive: 1\n" in wrong
    assert name.replace("\\", "/") in wrong


def test_zip_bomb_by_ratio(pack):
    contents, wrong = listed(pack({"bomb.png": bytes(40 * 2**20), "small.bmp": bytes(2**20)}))
    assert list(contents) == ["own.zip/small.bmp"]
    assert (
        "zip bomb, a member that unpacks to far more than its size: 1\n    own.zip/bomb.png: 41,943,040 bytes" in wrong
    )


def test_zip_bomb_by_size(pack, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_FILE", 1000)
    assert "zip bomb" in listed(pack({"bomb.png": os.urandom(1001), "a.png": os.urandom(1000)}))[1]


def test_file_larger_than_any_image(lay_out, monkeypatch):
    monkeypatch.setattr(archive, "LARGEST_FILE", 1000)
    folder = lay_out({"a.png": bytes(1001)})
    with pytest.raises(ValueError, match="1,001 bytes; an image file has at most 1,000"):
        listed(folder)


def test_member_larger_than_declared(pack):
    path = pack({"a.png": bytes(50_000)})
    content = path.read_bytes()
    declared = (50_000).to_bytes(4, "little")
    assert content.count(declared) == 2
    path.write_bytes(content.replace(declared, (500).to_bytes(4, "little")))
    with pytest.raises(ValueError, match="cannot be read as it is declared: Bad CRC-32"):
        listed(path)


def test_encrypted_member(pack):
    path = pack({"a.png": b"1"})
    content = bytearray(path.read_bytes())
    for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        content[content.index(signature) + flags] |= 1
    path.write_bytes(content)
    contents, wrong = listed(path)
    assert contents == {}
    assert "encrypted member: 1\n    own.zip/a.png" in wrong
    assert "extract the archive with its password" in wrong


def test_unknown_compression(pack):
    path = pack({"a.png": b"1"})
    content = bytearray(path.read_bytes())
    for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        content[content.index(signature) + method] = 98
    path.write_bytes(content)
    with pytest.raises(ValueError, match="compression method is not supported"):
        listed(path)


def test_checksums_of_sources(lay_out, pack, tmp_path):
    def checksums(*sources):
        with open_sources(sources, Problems()) as files:
            return source_checksums(files)

    archive = pack({"a.png": b"1"})
    (tmp_path / "own.zip").write_bytes(archive.read_bytes())
    folder = lay_out({"b.png": b"2", "c.png": b"33"}, name="folder")
    lines = checksums(archive, folder).splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["own.zip", "names and sizes of the files in folders"]
    assert all(len(line.split("  ")[0]) == 64 for line in lines)
    (folder / "c.png").write_bytes(b"3")
    assert checksums(archive, folder).splitlines()[0] == lines[0]
    assert checksums(archive, folder).splitlines()[1] != lines[1]
