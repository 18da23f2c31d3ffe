import pytest

from mhsvm.prepare.problems import Problems, Rule


def test_names_with_line_ends_stay_on_one_line():
    problems = Problems()
    problems.add(Rule("bad name", "rename it"), "own/a\nb\x1b.png")
    problems.leave_out("images", "own/c\r.png")
    with pytest.raises(ValueError, match="nothing") as caught:
        problems.raise_if_any("nothing was written:")
    lines = str(caught.value).split("\n")
    assert lines[2] == r"    own/a\nb\x1b.png"
    assert lines[-1] == r"  left out: 1 images, such as own/c\r.png"
