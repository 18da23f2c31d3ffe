"""Plain tables for a terminal."""

from collections.abc import Sequence


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[str] = ()) -> str:
    """Lines of columns as wide as their longest cell, two spaces apart.

    Args:
        header: Name of each column.
        rows: Cells, as many a row as there are columns.
        right: Columns that are aligned to the right, by name: numbers.
    """
    cells = [header, *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(len(header))]
    aligns = [">" if name in right else "<" for name in header]
    lines = (
        "  ".join(f"{cell:{align}{width}}" for cell, align, width in zip(row, aligns, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)
