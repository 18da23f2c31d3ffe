from mhsvm.table import format_table


def test_columns_are_as_wide_as_their_longest_cell():
    rows = [("a", "1.5"), ("longer", "12.25")]
    assert format_table(("name", "ms"), rows, right=("ms",)).splitlines() == [
        "name       ms",
        "a         1.5",
        "longer  12.25",
    ]


def test_no_spaces_at_the_end_of_a_line():
    assert format_table(("name", "why"), [("a", ""), ("b", "because")]).splitlines() == [
        "name  why",
        "a",
        "b     because",
    ]


def test_columns_keep_their_least_widths():
    assert format_table(("", "n"), [("a", "1")], right=("n",), min_widths=(3,)).splitlines() == ["     n", "a    1"]


def test_a_table_without_a_header_may_be_indented():
    rows = [("", "train", "a network"), ("", "test", "a checkpoint")]
    assert format_table((), rows, min_widths=(0, 6)).splitlines() == ["  train   a network", "  test    a checkpoint"]
