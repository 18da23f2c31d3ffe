import pytest
from PIL import Image

from mhsvm.cli.main import main


def synthesize(*arguments):
    return main(["synthesize", *map(str, arguments)])


@pytest.mark.parametrize(("size", "expected"), [("40", (40, 40)), ("32x48", (48, 32))])
def test_writes_a_set_of_the_asked_size(tmp_path, capsys, size, expected):
    out = tmp_path / "new" / "set"
    assert synthesize("--layout", "folder", "--num", 2, "--seed", 1, "--out", out, "--size", size) == 0
    assert [path.name for path in sorted(out.glob("images/*.jpg"))] == ["case_0000.jpg", "case_0001.jpg"]
    with Image.open(out / "images/case_0001.jpg") as image:
        assert image.size == expected
    assert capsys.readouterr().out == f"2 images in {out}\n"


def test_something_at_out_is_an_error_without_a_traceback(tmp_path, capsys):
    (tmp_path / "note.txt").write_text("mine", encoding="utf-8")
    assert synthesize("--layout", "folder", "--num", 1, "--out", tmp_path) == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path} exists and is not an empty folder")


@pytest.mark.parametrize("size", ["big", "32*32", "32x", "-4"])
def test_a_size_that_is_none(tmp_path, capsys, size):
    with pytest.raises(SystemExit) as caught:
        synthesize("--layout", "folder", "--num", 1, "--out", tmp_path / "set", f"--size={size}")
    assert caught.value.code == 2
    assert f"a size is written 256 or 192x256 (height x width); got {size!r}" in capsys.readouterr().err


def test_an_unknown_layout_lists_the_known(tmp_path, capsys):
    assert synthesize("--layout", "isic", "--num", 1, "--out", tmp_path / "set") == 2
    assert "isic2018" in capsys.readouterr().err
