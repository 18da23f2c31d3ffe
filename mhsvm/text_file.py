r"""Read and write text files: the only module that does, so that every file is UTF-8 and holds every name.

A line ends with "\n" alone: U+2028, U+0085 and other characters at which `str.splitlines` splits may be part of a name.
Names of files that are not UTF-8 hold lone surrogates (see `os.fsdecode`), which UTF-8 cannot encode. They are written
as the escape `\udcXX`. JSON has the same escape; in lines and tables it is read back here.
"""

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mhsvm.files import StrPath, full_disk_named, replace_when_complete

ENCODING, ENCODING_ERRORS = "utf-8", "backslashreplace"

_ESCAPED = re.compile(r"\\ud[c-f][0-9a-f]{2}")
# Texts that spreadsheets take for formulas, after apostrophes if any; numbers are none.
_FORMULA = re.compile(r"'*(?![+-]?[\d.]+$)[=+\-@\t\r\uff1d\uff0b\uff0d\uff20]")
# Marks with which Windows programs start text of two bytes a character.
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class Table:
    """A CSV table.

    Attributes:
        columns: Names of the columns.
        rows: Cell by column; each row has all columns.
        lines: For each row, the number of its last line in the file.
    """

    columns: tuple[str, ...]
    rows: list[dict[str, str]]
    lines: list[int]


def encode(text: str) -> bytes:
    """Encode a text as it is in files: UTF-8, with an escape for a lone surrogate."""
    return text.encode(ENCODING, ENCODING_ERRORS)


def decode(content: bytes, *, name: StrPath) -> str:
    """Decode UTF-8 after an optional byte-order mark.

    Args:
        content: Bytes of the file.
        name: Name of the file for the message.
    Raises:
        ValueError: The bytes are not UTF-8; the message has the line.
    """
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = "UTF-16" if content.startswith(_UTF16) else f"byte 0x{content[error.start]:02x}"
        raise ValueError(f"{name}, line {line}, is not UTF-8 text ({found}): save it as UTF-8") from error


def read_text(path: StrPath) -> str:
    """Read a text.

    Raises:
        ValueError: It is not UTF-8.
    """
    return decode(Path(path).read_bytes(), name=path)


def read_lines(path: StrPath) -> list[str]:
    """Read the lines of a text, without their ends.

    Raises:
        ValueError: It is not UTF-8.
    """
    return split_lines(read_text(path))


def split_lines(text: str) -> list[str]:
    r"""Split a text at "\n" and remove the ends of its lines; "\r\n" is one end, too."""
    lines = text.split("\n")
    if not lines[-1]:
        lines.pop()
    return [_restore(line.removesuffix("\r")) for line in lines]


def first_line(text: str) -> str:
    """The first line of a text, such as that of a long error."""
    return text.partition("\n")[0]


def write_text(path: StrPath, text: str) -> None:
    """Write a text; an older file is replaced when the new one is complete."""
    with replace_when_complete(Path(path)) as partial:
        partial.write_bytes(encode(text))


def write_lines(path: StrPath, lines: Iterable[str]) -> None:
    """Write lines, which are given without their ends, as `write_text` does."""
    write_text(path, "".join(f"{line}\n" for line in lines))


def read_json(path: StrPath, *, remedy: str = "remove it, or restore it from a copy") -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.
        remedy: Fix for a damaged file, for the message.
    Raises:
        ValueError: The file does not hold a JSON object.
    """
    try:
        return _parse_object(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({error}): {remedy}") from error


def write_json(path: StrPath, content: Mapping, *, indent: int | None = 2, allow_nan: bool = False) -> None:
    """Write a JSON object, as `write_text` does; keys keep their order.

    Raises:
        ValueError: It holds a number that is not finite, and `allow_nan` is False.
    """
    write_text(path, json.dumps(content, indent=indent, ensure_ascii=False, allow_nan=allow_nan) + "\n")


def read_json_lines(path: StrPath) -> list[dict[str, Any]]:
    """Read a JSON object a line. An incomplete last line, which a killed process leaves, is dropped.

    Raises:
        ValueError: Another line is not a JSON object; the message has its number.
    """
    *lines, last = Path(path).read_bytes().removeprefix(b"\xef\xbb\xbf").split(b"\n")
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(_parse_object(line.decode(ENCODING)))
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"{path}, line {number}, is damaged ({error}): remove the line, or restore the file from a copy"
            ) from error
    return found + ([json.loads(last)] if _is_complete(last) else [])


def write_json_lines(path: StrPath, rows: Iterable[Mapping]) -> None:
    """Write a JSON object a line, as `write_text` does."""
    write_lines(path, map(_json_line, rows))


def append_json_line(path: StrPath, content: Mapping) -> None:
    """Append a JSON object as a line; an incomplete last line, which a killed process left, is removed first."""
    with full_disk_named(Path(path)), Path(path).open("a+b") as file:
        _end_last_line(file)
        file.write(encode(_json_line(content) + "\n"))


def read_table(path: StrPath, *, remedy: str = "write the table again") -> Table:
    """Read a CSV table with a line of column names.

    Args:
        path: The file.
        remedy: Fix for a damaged table, for the message.
    Raises:
        ValueError: The file is not such a table, or a row has too few or too many cells; the message has the line.
    """
    return parse_table(Path(path).read_bytes(), name=path, remedy=remedy)


def parse_table(content: bytes, *, name: StrPath, remedy: str, delimiter: str = ",") -> Table:
    """Read the bytes of a CSV table as `read_table` does.

    Args:
        content: Bytes of the file.
        name: Name of the file for messages.
        remedy: Fix for a damaged table, for messages.
        delimiter: Mark between cells.
    Raises:
        ValueError: See `read_table`.
    """
    # with newline="", or the csv module would not see the ends of lines inside cells
    reader = csv.reader(io.StringIO(decode(content, name=name), newline=""), strict=True, delimiter=delimiter)
    table = Table((), [], [])
    try:
        for cells in reader:
            cells = [_undo_defuse(_restore(cell)) for cell in cells]
            if not table.columns:
                table = Table(tuple(cells), [], [])
            elif cells and len(cells) != len(table.columns):
                wrong = f"{len(cells)} cells, the line of names has {len(table.columns)}"
                raise ValueError(f"{name}, line {reader.line_num}: {wrong}; {remedy}")
            elif cells:
                table.rows.append(dict(zip(table.columns, cells, strict=True)))
                table.lines.append(reader.line_num)
    except csv.Error as error:
        raise ValueError(f"{name}, line {reader.line_num}: not a CSV table ({error}); {remedy}") from error
    return table


def split_cells(line: str, *, delimiter: str) -> list[str]:
    """Split a line of a table into its cells."""
    return next(csv.reader([line], delimiter=delimiter), [])


def write_table(path: StrPath, columns: Sequence[str], rows: Iterable[Sequence]) -> None:
    """Write a CSV table, as `write_text` does; None is an empty cell.

    A text that a spreadsheet would run as a formula gets an apostrophe at its start, which `read_table` removes.
    """
    lines = _Lines()
    # only the characters of its own line ends make the writer quote a cell, and a lone "\r" ends a line for its reader
    writer = csv.writer(lines, lineterminator="\r\n")
    writer.writerow(columns)
    writer.writerows([_defuse(cell) for cell in row] for row in rows)
    write_lines(path, lines)


class _Lines(list[str]):
    """Collects the lines of a table, without their ends."""

    def write(self, line: str) -> None:
        self.append(line.removesuffix("\r\n"))


def _defuse(cell: object) -> object:
    return f"'{cell}" if isinstance(cell, str) and _FORMULA.match(cell) else cell


def _undo_defuse(cell: str) -> str:
    return cell[1:] if cell.startswith("'") and _FORMULA.match(cell) else cell


def _json_line(content: Mapping) -> str:
    return json.dumps(content, ensure_ascii=False)


def _parse_object(text: str) -> dict[str, Any]:
    content = json.loads(text)
    if not isinstance(content, dict):
        raise ValueError(f"a JSON object is expected, not {type(content).__name__}")
    return content


def _is_complete(line: bytes) -> bool:
    """Whether a line without an end is an object all the same, since an editor has removed the end."""
    try:
        return bool(_parse_object(line.decode(ENCODING)))
    except (ValueError, RecursionError):
        return False


def _end_last_line(file: io.BufferedRandom) -> None:
    end = file.seek(0, io.SEEK_END)
    if end == 0:
        return
    file.seek(end - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    last = content[content.rfind(b"\n") + 1 :]
    if _is_complete(last):
        file.write(b"\n")
    else:
        file.truncate(end - len(last))


def _restore(text: str) -> str:
    """Lone surrogates for their escapes."""
    return _ESCAPED.sub(lambda match: chr(int(match[0][2:], 16)), text) if "\\ud" in text else text
