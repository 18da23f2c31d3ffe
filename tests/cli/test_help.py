"""Asking for help loads nothing heavy, and errors of the library name a command's options."""

import argparse
import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mhsvm
from mhsvm.cli.main import COMMANDS, run
from mhsvm.cli.options import with_options

ROOT = Path(mhsvm.__file__).parent
HEAVY = {"torch", "numpy", "scipy", "h5py", "PIL", "numba", "triton", "matplotlib", "tensorboardX", "jinja2", "monai"}
# These start commands, and other programs with options of their own.
START_PROGRAMS = {"sweep/run_state.py", "system.py"}

PROGRAM = """
import contextlib, io, json, sys
from mhsvm.cli.main import COMMANDS, main
loaded = {}
for name in COMMANDS:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        main([name, "--help"])
    loaded[name] = [output.getvalue()[:6], sorted({module.partition(".")[0] for module in sys.modules})]
print(json.dumps(loaded))
"""


def test_help_loads_nothing_heavy():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    loaded = json.loads(done.stdout)
    assert loaded.keys() == COMMANDS.keys()
    for name, (start, modules) in loaded.items():
        assert start == "usage:", name
        assert not HEAVY & set(modules), name


def test_the_library_names_no_option_of_a_command():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        if name.startswith("cli/") or name in START_PROGRAMS:
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_text = isinstance(node, ast.Constant) and isinstance(node.value, str)
            if is_text and any(word.startswith("--") and word[2:3].isalpha() for word in node.value.split()):
                found.append(f"{name}:{node.lineno}")
    assert not found


def test_an_argument_in_backticks_becomes_the_option():
    parser = argparse.ArgumentParser()
    parser.add_argument("--out", dest="folder")
    assert with_options("choose another `folder`, or `split`; run `mhsvm test`", parser) == (
        "choose another --out, or split; run `mhsvm test`"
    )


@pytest.mark.parametrize(
    ("command", "arguments", "message"),
    [
        ("train", ["--config", "nowhere.yaml"], "nowhere.yaml"),
        ("draw_routes", ["--out", "a.txt"], "--out is a file .png"),
    ],
)
def test_the_parser_of_a_command_is_found(command, arguments, message, capsys):
    module = __import__(f"mhsvm.cli.{command}", fromlist=["main"])
    assert run(module.main, arguments) == 2
    assert message in capsys.readouterr().err
