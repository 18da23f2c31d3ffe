"""The five ways to extend the package, from outside: the files of CONTRIBUTING.md, through commands and YAML."""

import contextlib
import csv
import importlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mhsvm
from mhsvm.assemble import build_split
from mhsvm.cli.main import main
from mhsvm.layers.mixers import MIXERS
from mhsvm.metrics.registered import METRICS
from mhsvm.models.recognition import recognize
from mhsvm.models.registry import MODELS
from mhsvm.prepare.sources import SOURCES
from mhsvm.store import PreparedSet

ROOT = Path(__file__).parents[1]
CODE = re.findall(r"```python\n# (\w+\.py)\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"), re.S)

# Kind of addition -> its files, without the test.
FILES = {
    "mixer": ["own_mixer.py"],
    "network": ["own_network.py"],
    "source": ["own_source.py"],
    "metric": ["own_metric.py"],
    "kernel": ["own_op.py", "own_op_kernels.py"],
}
ENTRIES = [(MIXERS, "average"), (MODELS, "plain"), (SOURCES, "clinic"), (METRICS, "core_recall")]

CONFIG = """
run: {{device: cpu, plugins: [{plugins}]}}
data: {{set: clinic, split: kfold-3-1-0}}
train: {{epochs: 1, batch_size: 4}}
model: {{name: {model}, ultralight_vm_unet: {{channels: "8,8,8,8,8,8", branches: 2, d_state: 2, mixer: average}}}}
"""
BEST = "results/own/checkpoints/best.pt"


def forget_plugins() -> None:
    """Leave the package as a new process finds it."""
    for registry, name in ENTRIES:
        if name in registry:
            registry.remove(name)
    for name in [name for name in sys.modules if name.startswith("own_")]:
        del sys.modules[name]
    importlib.invalidate_caches()


@contextlib.contextmanager
def newcomer_in(folder: Path):
    """Work in a folder as a newcomer does; entries that are not in the package can only come from its files."""
    forget_plugins()
    assert not [name for registry, name in ENTRIES if name in registry]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        yield patch
    loaded = [module for name, module in sys.modules.items() if name.startswith("own_")]
    assert all(Path(module.__file__).parent == folder for module in loaded)
    forget_plugins()


def run(folder: Path, *arguments: str, fails: bool = False) -> str:
    """Run a command; returns its output, or its error."""
    out, error = io.StringIO(), io.StringIO()
    with newcomer_in(folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main(arguments)
    assert (status != 0) == fails, out.getvalue() + error.getvalue()
    return error.getvalue() if fails else out.getvalue()


def write_code(folder: Path) -> None:
    for name, code in CODE:
        (folder / name).write_text(code, encoding="utf-8")


@pytest.fixture(scope="module")
def prepared_folder(tmp_path_factory):
    """A folder with the newcomer's files, and the prepared images and masks of 6 patients."""
    folder = tmp_path_factory.mktemp("newcomer")
    write_code(folder)
    generator = np.random.default_rng(0)
    for patient in range(6):
        for number in range(1 + patient % 3):
            image = generator.integers(100, 256, (32, 32, 3), dtype=np.uint8)
            mask = np.zeros((32, 32), np.uint8)
            mask[4 + patient // 2 : 15, 5 : 20 - number] = 255
            image[mask > 0] //= 3
            for kind, pixels in (("images", image), ("masks", mask)):
                (folder / "own" / kind).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(folder / "own" / kind / f"p{patient}_{number}.png")
    source = ("--plugins", "own_source", "--source", "own")
    run(folder, "prepare", "clinic", *source, "--out", "data/clinic.h5", "--size", "32")
    return folder


@pytest.fixture
def newcomer(prepared_folder, tmp_path):
    """A copy of the folder for a test."""
    return shutil.copytree(prepared_folder, tmp_path / "newcomer")


def test_each_addition_is_one_file_and_a_kernel_two():
    assert [name for name, _ in CODE] == [name for files in FILES.values() for name in files]
    assert {kind: len(files) for kind, files in FILES.items()} == {
        "mixer": 1,
        "network": 1,
        "source": 1,
        "metric": 1,
        "kernel": 2,
    }


def test_a_source_gives_groups_that_folds_keep(prepared_folder):
    with PreparedSet.open(prepared_folder / "data" / "clinic.h5") as prepared:
        groups = dict(zip(prepared.ids, prepared.groups, strict=True))
        parts = build_split("kfold-3-1-0", prepared).parts
    assert groups["p2_1"] == groups["p2_2"] == "p2"
    assert set(parts.values()) == {"train", "val", "test"}
    assert all(len({parts[id_] for id_ in parts if groups[id_] == group}) == 1 for group in groups.values())


def test_a_mixer_and_a_metric_of_a_config(newcomer):
    (newcomer / "own.yaml").write_text(CONFIG.format(plugins="own_mixer, own_metric", model="ultralight_vm_unet"))
    run(newcomer, "train", "--config", "own.yaml", "mixer.average.length", "5")
    recorded = torch.load(newcomer / BEST, weights_only=True)["config"]
    assert recorded["run"]["plugins"] == ["own_mixer", "own_metric"]
    assert recorded["mixer"]["average"] == {"length": 5}
    test = ("test", "--d", "clinic", "--device", "cpu", "--plugins", "own_mixer", "own_metric", "--p")
    printed = run(newcomer, *test, BEST)
    assert re.search(r"^core_recall +[\d.-]+", printed, re.M)
    (first,) = (newcomer / "results" / "own" / "tests").iterdir()
    with (first / "cases.csv").open() as file:
        assert {"hd95", "assd", "nsd", "core_recall"} <= set(csv.DictReader(file).fieldnames)
    summary = json.loads((first / "summary.json").read_text())
    assert "core_recall_per_image" in summary["metrics"]
    assert "core_recall_per_image" in summary["intervals"]["limits"]
    assert (summary["model"]["mixer"], summary["model"]["mixer average"]) == ("average", {"length": 5})
    run(newcomer, *test, "results/own/checkpoints/last.pt")
    first, second = sorted((newcomer / "results" / "own" / "tests").iterdir())
    # comparing and reporting read the tables, without the plugin
    assert re.search(r"^core_recall_per_image ", run(newcomer, "compare", str(first), str(second)), re.M)
    run(newcomer, "report", str(first))
    assert "core_recall" in (first / "report.html").read_text()
    run(newcomer, "train", "--resume", "results/own")
    scores = run(newcomer, "score", "--pred", "own/masks", "--truth", "own/masks", "--plugins", "own_metric")
    assert re.search(r"^core_recall +1\.0000", scores, re.M)
    message = run(newcomer, *test[:5], "--p", BEST, fails=True)
    assert f"error: {BEST}: it names plugins that are not imported: own_mixer, own_metric. " in message
    (newcomer / "own_mixer.py").rename(newcomer / "gone.py")
    message = run(newcomer, *test, BEST, fails=True)
    assert "error: the plugin 'own_mixer' cannot be imported: No module named 'own_mixer'" in message


def test_a_network_with_published_weights(newcomer):
    (newcomer / "own.yaml").write_text(CONFIG.format(plugins="own_network", model="plain"))
    run(newcomer, "train", "--config", "own.yaml", "model.plain.width", "6")
    run(newcomer, *f"test --d clinic --p {BEST} --device cpu --plugins own_network".split())
    state = torch.load(newcomer / BEST, weights_only=True)["model"]
    theirs = {k.replace("body.", "backbone.conv.").replace("head.", "classifier."): v for k, v in state.items()}
    with newcomer_in(newcomer) as patch:
        patch.syspath_prepend(newcomer)
        importlib.import_module("own_network")
        name, arguments = recognize(theirs)
        assert (name, arguments) == ("plain", {"width": 6})
        model = mhsvm.create_model(name, **arguments)
        mhsvm.load_weights(model, theirs)
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def run_code(code: str, folder: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env={**os.environ, **environment}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.usefixtures("_triton")
def test_an_operation_with_kernels(tmp_path):
    write_code(tmp_path)
    code = (
        "import torch, own_op\n"
        "x = torch.randn(5, 333).T.requires_grad_()\n"
        "y = own_op.square_relu_reference(x)\n"
        "(expected,) = torch.autograd.grad(y.sin().sum(), x)\n"
        "assert own_op.OPERATION.choose('auto', x).backend == 'triton'\n"
        "for backend in ('triton', 'auto', 'reference', 'chunked'):\n"
        "    own = own_op.square_relu(x, backend=backend)\n"
        "    torch.testing.assert_close(own, y)\n"
        "    torch.testing.assert_close(torch.autograd.grad(own.sin().sum(), x)[0], expected)"
    )
    # Triton reads its variable when it is imported
    run_code(code, tmp_path, PYTHONPATH=str(ROOT), TRITON_INTERPRET="1", MHSVM_BACKEND="")


def test_a_file_inside_the_package_needs_no_import_line(tmp_path):
    package = shutil.copytree(ROOT / "mhsvm", tmp_path / "mhsvm", ignore=shutil.ignore_patterns("__pycache__", "*.pt"))
    code = dict(CODE)
    (package / "layers" / "own.py").write_text(code["own_mixer.py"])
    (package / "models" / "own.py").write_text(code["own_network.py"])
    (package / "prepare" / "sources" / "own.py").write_text(code["own_source.py"])
    for folder, register in (("metrics", "metric"), ("routes", "pattern")):
        (package / folder / "own.py").write_text(
            f"from mhsvm.{folder} import register_{register}\n\nregister_{register}('own')(lambda *given: 0.0)\n"
        )
    code = (
        "import mhsvm, sys\n"
        "assert 'mhsvm.models' not in sys.modules\n"
        "from mhsvm.layers import PVMLayer\n"
        "from mhsvm.prepare.sources import list_sources\n"
        "PVMLayer(8, 8, branches=2, mixer='average')\n"
        "mhsvm.create_model('plain', width=2)\n"
        "assert 'clinic' in list_sources()\n"
        "assert 'own' in mhsvm.metrics.list_metrics()\n"
        "assert 'own' in mhsvm.routes.list_patterns()\n"
        "print(mhsvm.__file__)"
    )
    assert run_code(code, tmp_path, PYTHONPATH=str(tmp_path)) == f"{package / '__init__.py'}\n"
