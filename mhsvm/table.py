"""Tables of text: aligned columns for a terminal, or Markdown."""

from collections.abc import Sequence
from itertools import zip_longest


def format_table(
    header: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    right: Sequence[str] = (),
    min_widths: Sequence[int] = (),
) -> str:
    """Align cells in columns, two spaces apart, each as wide as its longest cell.

    Args:
        header: Name of each column; empty for a table without a header.
        rows: Cells; every row has as many.
        right: Names of the columns that are aligned to the right, such as numbers.
        min_widths: Least widths of the first columns in characters, so that several tables have equal columns.
    """
    cells = [header, *rows] if header else rows
    columns = zip_longest(zip(*cells, strict=True), min_widths, fillvalue=0)
    widths = [max(least, *map(len, column)) for column, least in columns]
    aligns = [">" if name in right else "<" for name in header] or ["<"] * len(widths)
    lines = (
        "  ".join(f"{cell:{align}{width}}" for cell, align, width in zip(row, aligns, widths, strict=True))
        for row in cells
    )
    return "\n".join(line.rstrip() for line in lines)


def format_markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Make a Markdown table, each line with its end; a bar inside a cell becomes a slash."""
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
