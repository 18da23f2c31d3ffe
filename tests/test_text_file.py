"""Text files keep every name, end their lines at line feeds alone, and are read and written in one module."""

import ast
import csv
import io
from pathlib import Path

import pytest

import mhsvm
from mhsvm import text_file

# U+2028, U+0085, U+001C and form feed end a line for str.splitlines; "\udce9" is byte E9 of a name that is not UTF-8
NAMES = ("皮肤", "a\u2028b", "a\x85b", "a\x1cb\x0c", "caf\udce9", 'a,"b"', " <b>é ")

ROOT = Path(mhsvm.__file__).parents[1]
SOURCES = sorted(
    [
        *ROOT.glob("*.py"),
        *(path for room in ("mhsvm", "scripts", "benchmarks", "examples") for path in (ROOT / room).rglob("*.py")),
    ]
)


def test_every_name_survives_in_lines_tables_and_json(tmp_path):
    lines, table, rows, content = (tmp_path / name for name in ("a.txt", "a.csv", "a.jsonl", "a.json"))
    text_file.write_lines(lines, NAMES)
    text_file.write_table(table, ("id", "n"), [(name, 1) for name in NAMES])
    text_file.write_json_lines(rows, [{"id": name} for name in NAMES[:3]])
    for name in NAMES[3:]:
        text_file.append_json_line(rows, {"id": name})
    text_file.write_json(content, dict.fromkeys(NAMES))
    assert text_file.read_lines(lines) == list(NAMES)
    assert [row["id"] for row in text_file.read_table(table).rows] == list(NAMES)
    assert [row["id"] for row in text_file.read_json_lines(rows)] == list(NAMES)
    assert tuple(text_file.read_json(content)) == NAMES
    for path in (lines, table, rows, content):
        text = path.read_bytes().decode("utf-8")
        assert "\r" not in text
        assert all(part in text for part in ("皮肤", "caf\\udce9"))


def test_marks_and_line_ends_of_other_programs_are_read(tmp_path):
    path = tmp_path / "list.txt"
    path.write_bytes("\ufeffa\tb\r\nc\r\n\r\nd".encode())
    assert text_file.read_lines(path) == ["a\tb", "c", "", "d"]
    path.write_bytes('\ufeffid,n\r\n"a\r\nb",1\r\n\r\n'.encode())
    table = text_file.read_table(path)
    assert (table.columns, table.rows, table.lines) == (("id", "n"), [{"id": "a\r\nb", "n": "1"}], [3])
    path.write_bytes(b"")
    assert text_file.read_lines(path) == text_file.read_table(path).rows == text_file.read_json_lines(path) == []


@pytest.mark.parametrize(
    ("content", "found"), [("a\nbé".encode("cp1252"), "line 2, .*0xe9"), ("a\n".encode("utf-16"), "line 1, .*UTF-16")]
)
def test_other_encodings_are_named_with_their_line(tmp_path, content, found):
    path = tmp_path / "list.txt"
    path.write_bytes(content)
    for read in (text_file.read_text, text_file.read_lines, text_file.read_table):
        with pytest.raises(ValueError, match=rf"list\.txt, {found}"):
            read(path)


@pytest.mark.parametrize("tail", [b'{"n": 2', '{"n": "é'.encode()[:-1], b'{"n": 1}'[:-1], b"\0\0\0", b"7"])
def test_the_incomplete_last_line_of_a_killed_process_is_dropped(tmp_path, tail):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n' + tail)
    assert text_file.read_json_lines(path) == [{"n": 1}]
    text_file.append_json_line(path, {"n": 3})
    assert path.read_bytes() == b'{"n": 1}\n{"n": 3}\n'


def test_a_whole_last_line_without_its_end_is_kept(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n{"n": 2}')
    assert text_file.read_json_lines(path) == [{"n": 1}, {"n": 2}]
    text_file.append_json_line(path, {"n": 3})
    assert path.read_bytes() == b'{"n": 1}\n{"n": 2}\n{"n": 3}\n'


@pytest.mark.parametrize("line", [b'{"n": 2', b"", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')
    with pytest.raises(ValueError, match=r"rows\.jsonl, line 2, is damaged"):
        text_file.read_json_lines(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'{"a":' * 100_000])
def test_damaged_json_is_named_with_its_remedy(tmp_path, content):
    path = tmp_path / "summary.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"summary\.json is damaged \(.*\): test again"):
        text_file.read_json(path, remedy="test again")


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"a,b\n1\n", "line 2: 1 cells"), (b"a,b\n1,2\n1,2,3\n", "line 3: 3 cells"), (b'a\n"b\nc', "line 3")],
)
def test_damaged_rows_are_named(tmp_path, content, found):
    path = tmp_path / "cases.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"cases\.csv, {found}"):
        text_file.read_table(path)


def test_a_write_that_fails_leaves_the_older_file(tmp_path):
    path = tmp_path / "a.json"
    text_file.write_json(path, {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        text_file.write_json(path, {"n": float("nan")})
    assert text_file.read_json(path) == {"n": 1}
    assert list(tmp_path.iterdir()) == [path]


def violations(source: str) -> list[str]:
    """Calls and imports that read or write text beside `mhsvm.text_file`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import) and any(alias.name == "csv" for alias in node.names):
            found.append(f"line {node.lineno}: csv")
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in ("read_text", "write_text", "splitlines") and isinstance(node.func, ast.Attribute):
            found.append(f"line {node.lineno}: {name}")
        keywords = {keyword.arg for keyword in node.keywords}
        modes = [
            value.value
            for value in (*node.args, *(k.value for k in node.keywords if k.arg == "mode"))
            if isinstance(value, ast.Constant)
        ]
        builtin = name in ("open", "fdopen") and (isinstance(node.func, ast.Name) or not node.args or modes != [])
        as_text = builtin and not any("b" in str(mode) for mode in modes)
        from_process = any(k.arg in ("text", "universal_newlines") for k in node.keywords)
        if (as_text or from_process) and "encoding" not in keywords:
            found.append(f"line {node.lineno}: {name} without an encoding")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_text_is_read_and_written_in_one_module(path):
    if path != Path(text_file.__file__):
        assert violations(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "line",
    [
        "open(p)",
        "open(p, 'w')",
        "p.open()",
        "p.open('a')",
        "p.open(mode='r')",
        "p.read_text(encoding='utf-8')",
        "t.splitlines()",
        "import csv",
        "run(c, text=True)",
        "os.fdopen(1, 'w')",
    ],
)
def test_forbidden_reading_is_found(line):
    assert violations(line)


@pytest.mark.parametrize(
    "line",
    [
        "open(p, 'rb')",
        "p.open('ab')",
        "Image.open(p)",
        "archive.open(member)",
        "open(p, encoding='utf-8')",
        "os.open(p, flags)",
    ],
)
def test_binary_reading_is_allowed(line):
    assert not violations(line)


@pytest.mark.parametrize("text", ["=1+1", "@SUM(A1)", "-2+3", "+a", "\tx", "=", "＝1", "'=1", "''-a"])
def test_texts_that_look_like_formulas_are_defused_and_read_back(tmp_path, text):
    path = tmp_path / "table.csv"
    text_file.write_table(path, ("id", "dice"), [(text, 0.5)])
    ((cell, _),) = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))[1:]
    assert cell == f"'{text}"
    assert text_file.read_table(path).rows == [{"id": text, "dice": "0.5"}]


@pytest.mark.parametrize("text", ["ISIC_0000000", "-1", "+2.5", "a=b", "'a", "", "it's"])
def test_other_texts_are_written_as_they_are(tmp_path, text):
    path = tmp_path / "table.csv"
    text_file.write_table(path, ("id", "gain"), [(text, -0.5)])
    ((cell, gain),) = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))[1:]
    assert (cell, gain) == (text, "-0.5")
    assert text_file.read_table(path).rows == [{"id": text, "gain": "-0.5"}]


def test_line_ends_inside_cells_come_back(tmp_path):
    cells = ["a\rb", "a\r", "a\nb", "a\r\nb", "plain"]
    text_file.write_table(tmp_path / "a.csv", ("id", "n"), [(cell, 1) for cell in cells])
    assert (tmp_path / "a.csv").read_bytes().endswith(b"\nplain,1\n")
    assert [row["id"] for row in text_file.read_table(tmp_path / "a.csv").rows] == cells
