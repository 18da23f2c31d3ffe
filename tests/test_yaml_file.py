"""Reading YAML in bounded time; tests/test_config.py has the settings."""

import pytest

from mhsvm.yaml_file import MAX_BYTES, read_yaml


def test_aliases_count_as_the_values_that_they_stand_for(tmp_path):
    path = tmp_path / "aliases.yaml"
    path.write_text("a: &a [x, y]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    # 1 for the whole, a 3, b 7, c 15
    assert read_yaml(path, max_values=26)["c"] == [[["x", "y"]] * 2] * 2
    with pytest.raises(ValueError, match="with its aliases it stands for more than 25 values"):
        read_yaml(path, max_values=25)


def test_a_large_file_is_not_read(tmp_path):
    path = tmp_path / "large.yaml"
    path.write_text("# " + "x" * MAX_BYTES)
    with pytest.raises(ValueError, match=r"large\.yaml is no config: it has 200,002 bytes, more than 200,000"):
        read_yaml(path)


def test_scalars_stay_text_and_only_empty_ones_are_none(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("{a: 1e-3, b: on, c: 010, d: 1:30, e: ~, f: '~', g: null, h: '', i: , j: 2017-01-01}")
    assert read_yaml(path) == {
        **{"a": "1e-3", "b": "on", "c": "010", "d": "1:30", "e": None, "f": "~", "g": None, "h": "", "i": None},
        "j": "2017-01-01",
    }
