"""The pages agree with the program: commands, config keys, links, modules and files."""

import importlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from yacs.config import CfgNode

from mhsvm.assemble import exporting, load_trained
from mhsvm.cli.main import COMMANDS
from mhsvm.defaults import DEFAULTS
from mhsvm.export import Export
from mhsvm.export.onnx_file import write_onnx
from mhsvm.models.pretrained import find_pretrained
from mhsvm.routes.patterns import PATTERNS
from tests.fixtures.commands import check_command, command_main, parser_of

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *(ROOT / "scripts").rglob("*.md"),
        ROOT / "data/README.md",
        ROOT / "mhsvm/models/weights/README.md",
    ]
)
# history names modules, commands and files as they were
HISTORY = (ROOT / "CHANGELOG.md", ROOT / "scripts/records/README.md")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def each_page(test):
    return pytest.mark.parametrize("page", PAGES, ids=NAMES)(test)


@each_page
def test_commands_are_parsed_by_the_program(page):
    lines = [line for line in _shell_lines(page.read_text(encoding="utf-8")) if "$" not in line and "…" not in line]
    checked = [line for line in lines if check_command(line)]
    if page.parent.name in ("getting-started", "how-to") and page.name != "notebook.md":
        assert checked


@each_page
def test_links_lead_somewhere(page):
    broken = []
    for target, anchor in re.findall(r"\]\(([^)\s#]*)(?:#([^)\s]*))?\)", page.read_text(encoding="utf-8")):
        if target.startswith(("http:", "https:", "mailto:")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in _anchors(file)):
            broken.append(f"{target}#{anchor}")
    assert broken == []


def test_every_page_is_in_the_index():
    index = (ROOT / "docs/README.md").read_text(encoding="utf-8")
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index)}
    assert {page for page in (ROOT / "docs").rglob("*.md") if page.name != "README.md"} - linked == set()


@each_page
def test_modules_and_files_exist(page):
    text = "" if page in HISTORY else page.read_text(encoding="utf-8")
    modules = {name for name in re.findall(r"\bmhsvm(?:\.[A-Za-z_]\w*)+", text) if not _resolves(name)}
    paths = re.findall(r"`((?:configs|scripts|mhsvm|tests|benchmarks|docs|examples)/[\w./-]+)", text)
    assert modules == set()
    assert [path for path in paths if not (ROOT / path).exists()] == []


@each_page
def test_inline_commands_exist(page):
    named = re.findall(r"`mhsvm ([a-z][a-z-]*)", page.read_text(encoding="utf-8"))
    assert [name for name in named if name not in COMMANDS and page not in HISTORY] == []


@pytest.mark.parametrize("name", COMMANDS)
def test_the_reference_has_the_options_of_each_command(name):
    page = (ROOT / "docs/reference/commands.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"^## mhsvm {name}\n(.*?)(?=^## |\Z)", page, re.S | re.M)
    first_cells = re.findall(r"^\| (`--(?:\\\||[^|])*) \|", section, re.M)
    shown = [option for cell in first_cells for option in re.findall(r"`(--[\w-]+)", cell)]
    options = [
        option
        for action in parser_of(command_main(name))._actions
        for option in action.option_strings
        # every command has these
        if option.startswith("--") and option not in ("--help", "--version")
    ]
    assert sorted(shown) == sorted(options)


def test_the_reference_has_every_config_key_with_its_default():
    page = (ROOT / "docs/reference/config.md").read_text(encoding="utf-8")
    shown = dict(re.findall(r"^\| `([\w.]+)` \| `([^`]*)` \|", page, re.M))
    assert shown == {key: _shown(value) for key, value in _leaves(DEFAULTS)}


# tests/test_newcomer.py runs the code of CONTRIBUTING.md
RUN = [page for page in PAGES if "```python" in page.read_text(encoding="utf-8") and page.name != "CONTRIBUTING.md"]


@pytest.mark.parametrize("page", RUN, ids=[str(page.relative_to(ROOT)) for page in RUN])
def test_python_blocks_run(page, workplace, make_set, monkeypatch):
    make_set("demo")
    for name in ("image.jpg", "fold0.pt", "fold1.pt"):
        if name.endswith("pt"):
            shutil.copyfile(find_pretrained("isic2017-wu-sorted").path, name)
        else:
            Image.fromarray(np.full((40, 60, 3), 150, np.uint8)).save(name)
    if "segment.onnx" in page.read_text(encoding="utf-8"):
        trained = load_trained("fold0.pt", device=torch.device("cpu"))
        write_onnx(Export(trained.model, exporting._facts(trained, None)), Path("segment.onnx"))
    monkeypatch.setenv("MPLBACKEND", "agg")
    scope: dict = {}
    for code in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        exec(compile(code, str(page), "exec"), scope)
    for name in set(PATTERNS) - {"C", "X", "S", "Z"}:
        PATTERNS.remove(name)


def _shell_lines(text):
    """Lines of shell in fenced and indented blocks, with continued lines joined."""
    text = re.sub(r"\\\n\s*", "", text)
    text = re.sub(r"^```(?!bash|sh).+?^```", "", text, flags=re.S | re.M)
    return [
        line.strip()
        for line in re.findall(
            r"^(?: {4,}|\t)?(?:\$ )?((?:[A-Z_]+=\S+ )?(?:python|torchrun|srun|mhsvm) .*)", text, re.M
        )
    ]


def _anchors(file):
    headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _resolves(name):
    parts = name.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def _leaves(node, prefix=""):
    for key, value in node.items():
        if isinstance(value, CfgNode):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _shown(value):
    if value is None:
        return "none"
    if value in ("", ()):
        return '""'
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value)
