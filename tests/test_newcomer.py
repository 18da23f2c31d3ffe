"""The five ways to extend the package, from outside: the files of CONTRIBUTING.md, through commands and YAML."""

import csv
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import mhsvm
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

CONFIG = """
run: {{device: cpu, plugins: [{plugins}]}}
data: {{set: clinic, split: kfold-3-1-0}}
train: {{epochs: 1, batch_size: 4}}
model: {{name: {model}, ultralight_vm_unet: {{channels: "8,8,8,8,8,8", branches: 2, d_state: 2, mixer: average}}}}
"""


def package_state() -> dict[str, str]:
    """Checksum of each file of the package."""
    files = [path for path in Path(mhsvm.__file__).parent.rglob("*") if path.suffix in (".py", ".csv", ".html")]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module", autouse=True)
def _the_package_stays_as_it_is():
    before = package_state()
    yield
    assert package_state() == before


@pytest.fixture
def newcomer(tmp_path):
    """A folder with the newcomer's files, and images and masks of 6 patients."""
    for name, code in CODE:
        (tmp_path / name).write_text(code, encoding="utf-8")
    generator = np.random.default_rng(0)
    for patient in range(6):
        for number in range(1 + patient % 3):
            image = generator.integers(100, 256, (64, 64, 3), dtype=np.uint8)
            mask = np.zeros((64, 64), np.uint8)
            mask[8 + patient : 30, 10 : 40 - number] = 255
            image[mask > 0] //= 3
            for folder, pixels in (("images", image), ("masks", mask)):
                (tmp_path / "own" / folder).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(tmp_path / "own" / folder / f"p{patient}_{number}.png")
    return tmp_path


@pytest.fixture
def run(newcomer):
    """Runs a command as a newcomer does, in a process of its own; returns its output."""

    def call(*arguments: str, fails: bool = False, **environment: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "mhsvm", *arguments] if arguments[0] != "-c" else [sys.executable, *arguments],
            cwd=newcomer,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            capture_output=True,
            text=True,
        )
        assert (done.returncode != 0) == fails, done.stdout + done.stderr
        return done.stderr if fails else done.stdout

    return call


def test_each_addition_is_one_file_and_a_kernel_two():
    assert [name for name, _ in CODE] == [name for files in FILES.values() for name in files]
    assert {kind: len(files) for kind, files in FILES.items()} == {
        "mixer": 1,
        "network": 1,
        "source": 1,
        "metric": 1,
        "kernel": 2,
    }


def prepare(run) -> None:
    run("prepare", "clinic", "--plugins", "own_source", "--source", "own", "--out", "data/clinic.h5", "--size", "64")


def test_a_source_gives_groups_that_folds_keep(newcomer, run):
    prepare(run)
    with PreparedSet.open(newcomer / "data" / "clinic.h5") as prepared:
        groups = dict(zip(prepared.ids, prepared.groups, strict=True))
    assert groups["p2_1"] == groups["p2_2"] == "p2"
    code = (
        "import json\nfrom mhsvm.assemble import build_split\nfrom mhsvm.store import PreparedSet\n"
        "with PreparedSet.open('data/clinic.h5') as prepared:\n"
        "    print(json.dumps(build_split('kfold-3-1-0', prepared).parts))"
    )
    parts = json.loads(run("-c", code).splitlines()[-1])
    assert set(parts.values()) == {"train", "val", "test"}
    assert all(len({parts[id_] for id_ in parts if groups[id_] == group}) == 1 for group in groups.values())


def test_a_mixer_and_a_metric_of_a_config(newcomer, run):
    prepare(run)
    (newcomer / "own.yaml").write_text(CONFIG.format(plugins="own_mixer, own_metric", model="ultralight_vm_unet"))
    run("train", "--config", "own.yaml", "mixer.average.length", "5")
    best = "results/own/checkpoints/best.pt"
    recorded = torch.load(newcomer / best, weights_only=True)["config"]
    assert recorded["run"]["plugins"] == ["own_mixer", "own_metric"]
    assert recorded["mixer"]["average"] == {"length": 5}
    printed = run("test", "--d", "clinic", "--p", best, "--device", "cpu")
    assert re.search(r"^nsd +[\d.-]+", printed, re.M)
    (test,) = (newcomer / "results" / "own" / "tests").iterdir()
    with (test / "cases.csv").open() as file:
        assert {"hd95", "assd", "nsd"} <= set(csv.DictReader(file).fieldnames)
    summary = json.loads((test / "summary.json").read_text())
    assert "nsd_per_image" in summary["metrics"]
    assert "nsd_per_image" in summary["intervals"]["limits"]
    assert (summary["model"]["mixer"], summary["model"]["mixer average"]) == ("average", {"length": 5})
    run("test", "--d", "clinic", "--p", "results/own/checkpoints/last.pt", "--device", "cpu")
    first, second = sorted((newcomer / "results" / "own" / "tests").iterdir())
    # comparing and reporting read the tables, without the plugin
    assert re.search(r"^nsd_per_image ", run("compare", str(first), str(second)), re.M)
    run("report", str(first))
    assert "nsd" in (first / "report.html").read_text()
    run("train", "--resume", "results/own")
    scores = run("score", "--pred", "own/masks", "--truth", "own/masks", "--plugins", "own_metric")
    assert re.search(r"^nsd +1\.0000", scores, re.M)
    (newcomer / "own_mixer.py").rename(newcomer / "gone.py")
    message = run("test", "--d", "clinic", "--p", best, fails=True)
    assert f"error: {best}: the plugin 'own_mixer' cannot be imported: No module named 'own_mixer'" in message


def test_a_network_with_published_weights(newcomer, run):
    prepare(run)
    (newcomer / "own.yaml").write_text(CONFIG.format(plugins="own_network", model="plain"))
    run("train", "--config", "own.yaml", "model.plain.width", "6")
    run("test", "--d", "clinic", "--p", "results/own/checkpoints/best.pt", "--device", "cpu")
    code = (
        "import torch, own_network\n"
        "from mhsvm import create_model, load_weights\n"
        "from mhsvm.models.recognition import recognize\n"
        "state = torch.load('results/own/checkpoints/best.pt', weights_only=True)['model']\n"
        "theirs = {k.replace('body.', 'backbone.conv.').replace('head.', 'classifier.'): v for k, v in state.items()}\n"
        "name, arguments = recognize(theirs)\n"
        "print(name, arguments)\n"
        "model = create_model(name, **arguments)\n"
        "load_weights(model, theirs)\n"
        "assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())"
    )
    assert run("-c", code) == "plain {'width': 6}\n"


@pytest.mark.usefixtures("_triton")
def test_an_operation_with_kernels(newcomer, run):
    code = (
        "import torch, own_op\n"
        "x = torch.randn(5, 333).T\n"
        "assert own_op.OPERATION.choose('auto', x).backend == 'triton'\n"
        "for backend in ('triton', 'auto', 'reference', 'chunked'):\n"
        "    torch.testing.assert_close(own_op.square_relu(x, backend=backend), own_op.square_relu_reference(x))"
    )
    run("-c", code, TRITON_INTERPRET="1", MHSVM_BACKEND="")
