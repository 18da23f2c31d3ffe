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
