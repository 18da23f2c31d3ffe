"""Asking for help loads nothing heavy, and errors of the library name a command's options."""

import argparse
import ast
import contextlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

import mhsvm
from mhsvm.cli.main import COMMANDS, EXAMPLES, main, run
from mhsvm.cli.options import with_options
from mhsvm.cli.parser import program
from mhsvm.leakage import find_duplicates
from mhsvm.prepare.sets import find_set
from tests.fixtures.commands import check_command, command_main, parser_of

ROOT = Path(mhsvm.__file__).parent
HEAVY = {"torch", "numpy", "scipy", "h5py", "PIL", "numba", "triton", "matplotlib", "tensorboardX", "jinja2", "monai"}
# These start or name commands and other programs with options of their own.
START_PROGRAMS = {"native/library.py", "native/wasm.py", "export/node.py", "sweep/run_state.py", "system.py"}
START_PROGRAMS |= {"ops/scan/mamba_ssm.py", "models/smp.py"}

SCRIPTS = [path.as_posix() for path in (Path("scripts/release_weights.py"), Path("scripts/results.py"))]

PROGRAM = """
import contextlib, io, json, runpy, sys
from mhsvm.cli.main import COMMANDS, main

def start_script(path):
    sys.argv = [path, "--help"]
    sys.path.insert(0, "scripts")
    runpy.run_path(path, run_name="__main__")

def start_benchmarks(options):
    from benchmarks.cli import main
    main(options)

starts = {name: lambda name=name: main([name, "--help"]) for name in COMMANDS}
starts |= {path: lambda path=path: start_script(path) for path in sys.argv[1:]}
starts |= {f"benchmarks {' '.join(options)}": lambda options=options: start_benchmarks([*options, "--help"])
           for options in ([], ["scan"], ["train"])}
loaded = {}
for name, start in starts.items():
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        start()
    loaded[name] = [output.getvalue()[:6], sorted({module.partition(".")[0] for module in sys.modules})]
print(json.dumps(loaded))
"""


def test_help_loads_nothing_heavy():
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *SCRIPTS], capture_output=True, text=True, check=True, cwd=ROOT.parent
    )
    loaded = json.loads(done.stdout)
    assert loaded.keys() > {*COMMANDS, *SCRIPTS}
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


@pytest.mark.parametrize("name", COMMANDS)
def test_help_ends_with_examples_that_the_program_parses(name, capsys):
    with pytest.raises(SystemExit, match="0"):
        main([name, "--help"])
    printed = capsys.readouterr().out
    _, found, examples = printed.rpartition("example")
    assert found
    lines = [line.strip() for line in examples.splitlines()[1:]]
    assert lines
    for line in lines:
        assert line.startswith(f"mhsvm {name}")
        assert check_command(line)


def test_help_without_a_command_lists_all_with_examples(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)
    for line in EXAMPLES:
        assert f"  {line}\n" in printed
        assert check_command(line)


@pytest.mark.parametrize("arguments", [["--version"], *([name, "--version"] for name in COMMANDS)])
def test_every_command_has_the_version(arguments, capsys):
    with contextlib.suppress(SystemExit):
        main(arguments)
    assert capsys.readouterr().out == f"mhsvm {mhsvm.__version__}\n"


@pytest.mark.parametrize(
    ("argv0", "command", "name"),
    [
        ("/env/bin/mhsvm", "train", "mhsvm train"),
        ("train.py", "train", "python train.py"),
        ("/clone/test.py", "test", "python test.py"),
        ("scripts/prepare.py", "prepare", "python scripts/prepare.py"),
        ("/site/mhsvm/__main__.py", "train", "python -m mhsvm train"),
        ("train.py", "test", "mhsvm test"),
    ],
)
def test_a_command_has_the_name_by_which_it_was_called(argv0, command, name, monkeypatch):
    monkeypatch.setattr(sys, "argv", [argv0])
    assert program(command) == name
    assert parser_of(command_main(command)).format_usage().startswith(f"usage: {name} ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Did you mean 'train'?"),
        (["test", "--chekpoint", "a.pt", "--data", "b"], "unknown option '--chekpoint'. Did you mean '--checkpoint'?"),
        (["score", "--prd", "a"], "unknown option '--prd'. Did you mean '--pred'?"),
        (["train", "--confg=a.yaml"], "unknown option '--confg'. Did you mean '--config'?"),
        (["train", "--config", "a.yaml", "--epochs", "3"], "Settings take no dashes: train.epochs"),
        (["profile", "--train.batch-size=3"], "Settings take no dashes: train.batch_size"),
        (["predict", "--weights", "a", "--source", "b", "--out", "c", "--tta", "flip"], "did you mean 'flips'?"),
        (["predict", "--weights", "isic2017-wu-sort", "--source", ".", "--out", "c"], "mean 'isic2017-wu-sorted'?"),
        (["train", "--config", "a.yaml", "model.name", "vmunet"], "config a.yaml does not exist"),
        (["profile", "--model", "vmunet"], "Did you mean 'vm_unet'?"),
        (["profile", "--model", "mhs_vm", "model.backend", "chunkd"], "Did you mean 'chunked'?"),
        (
            ["test", "--checkpoint", "a.pt", "--data", "b", "--gate-threshold", "nan"],
            "takes a finite number, not 'nan'",
        ),
        (["draw-routes", "--pattern", "c", "--out", "a.png"], "Did you mean 'C'?"),
    ],
)
def test_a_wrong_name_has_the_nearest(arguments, message, workplace, capsys):
    with contextlib.suppress(SystemExit):
        assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_a_wrong_name_of_a_set_has_the_nearest(make_set):
    make_set("lesions")
    with pytest.raises(FileNotFoundError, match=r"In data/: lesions\.h5\. Did you mean 'lesions'\? Make one with"):
        find_set("lesion")


def test_options_have_long_names_beside_the_letters():
    pairs = {"test": ("checkpoint p data d heads h"), "predict": "checkpoint p", "report": "data d"}
    pairs |= {"routegen": "width w height h", "draw-routes": "width w height h"}
    for command, names in pairs.items():
        actions = parser_of(command_main(command))._option_string_actions
        words = names.split()
        for long, letter in zip(words[::2], words[1::2], strict=True):
            assert actions[f"--{long}"] is actions[f"--{letter}"]


def test_bars_are_shown_in_terminals_only():
    """A bar has `disable=None`, or `hidden`, which is None or True."""
    num_bars = 0
    folders = (ROOT, ROOT.parent / "benchmarks", ROOT.parent / "scripts")
    for path in [path for folder in folders for path in folder.rglob("*.py")]:
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        calls = [node for node in nodes if isinstance(node, ast.Call) and ast.unparse(node.func) in ("tqdm", "trange")]
        disable = {ast.unparse(each.value) for call in calls for each in call.keywords if each.arg == "disable"}
        num_bars += len(calls)
        assert len(calls) == sum(each.arg == "disable" for call in calls for each in call.keywords), path
        assert disable <= {"None", "hidden"}, path
        if "hidden" in disable:
            values = [ast.unparse(node.value) for node in nodes if ast.unparse(node).startswith("hidden = ")]
            assert values, path
            assert all(value.startswith("None if ") and value.endswith(" else True") for value in values), path
    assert num_bars >= 8


def test_the_search_for_near_duplicates_has_a_bar_in_a_terminal(scenes, capsys, monkeypatch):
    ids = [str(number) for number in range(len(scenes))]
    pairs = find_duplicates(scenes, ids)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert find_duplicates(scenes, ids) == pairs
    assert "near-duplicates, pass 1 of 4: 100%" in capsys.readouterr().err
