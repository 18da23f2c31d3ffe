"""`mhsvm draw-routes`: a picture of any pattern at any size, and every message."""

import pytest
from PIL import Image

from mhsvm.cli import draw_routes as command
from mhsvm.cli.main import main, run


def test_one_pattern(workplace, capsys):
    assert main(["draw-routes", "--pattern", "S", "--h", "16", "--w", "16", "--out", "figures/spiral.png"]) == 0
    assert capsys.readouterr().out == "written: figures/spiral.png\n"
    with Image.open(workplace / "figures/spiral.png") as image:
        assert image.width > 600
        assert len(image.convert("RGB").getcolors(1 << 24)) > 50


@pytest.mark.parametrize("size", [("1", "1"), ("1", "5"), ("40", "3")])
def test_all_patterns_at_any_size(workplace, size):
    assert command.main(["--h", size[0], "--w", size[1], "--out", "all.svg"]) == 0
    content = (workplace / "all.svg").read_text()
    assert content.startswith("<?xml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pattern", "Q", "--out", "q.png"], "unknown scan pattern 'Q'; known: C, X, S, Z"),
        (["--out", "q.gif"], "--out is a file .png, .svg, .pdf, not 'q.gif'"),
        (["--out", "q"], "--out is a file .png, .svg, .pdf, not 'q'"),
    ],
)
def test_what_a_user_can_do_wrong(workplace, capsys, options, message):
    assert run(command.main, options) == 2
    assert capsys.readouterr().err == f"error: {message}\n"
    assert [path.name for path in workplace.iterdir()] == ["data"]


def test_sizes_are_whole_numbers(capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--h", "0", "--out", "q.png"])
    assert "argument --height/--h: takes a whole number from 1 on, not '0'" in capsys.readouterr().err
