"""Plugins that a checkpoint names: no loader imports one that the user has not named or imported."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

import mhsvm
from mhsvm.assemble import build_split, load_trained, plan_resumed
from mhsvm.cli.main import main
from mhsvm.config import load_config
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.store import PreparedSet

BEST, RUN = "results/run/checkpoints/best.pt", Path("results/run")
FLAG = Path("imported.txt")
REFUSED = (
    r"names plugins that are not imported: stranger\. A checkpoint imports no modules by itself; "
    r"if you trust their code, name them in "
)


def load(plugins):
    return load_trained(BEST, plugins=plugins, device=torch.device("cpu"))


def load_predictor(plugins):
    mhsvm.load_predictor([BEST, BEST], plugins=plugins, device="cpu")


def evaluate(plugins):
    mhsvm.evaluate(BEST, "lesions", plugins=plugins, boundary=False, device="cpu")


def predict(plugins):
    mhsvm.predict("image.png", BEST, plugins=plugins, device="cpu")


@pytest.fixture(autouse=True)
def stranger(workplace, make_set, make_checkpoint, monkeypatch):
    """A checkpoint that names a module which is importable and leaves a file when it is imported."""
    monkeypatch.syspath_prepend(workplace)
    (workplace / "stranger.py").write_text(f"open({str(FLAG)!r}, 'w').close()\n")

    def name_it(content):
        content["config"]["run"]["plugins"] = ["stranger"]
        content["training"] = {"progress": {"epoch": 1}}

    for file in ("best.pt", "last.pt"):
        make_checkpoint(make_set(), path=f"{RUN}/checkpoints/{file}", change=name_it)
    Image.new("RGB", (40, 40)).save("image.png")
    yield
    for name in ("stranger", "own"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("loader", [load, load_predictor, evaluate, predict])
def test_a_function_imports_only_plugins_that_it_is_given(loader):
    with pytest.raises(ValueError, match=f"best.pt: it {REFUSED}`plugins`"):
        loader([])
    assert not FLAG.exists()
    loader(["stranger"])
    assert FLAG.exists()


@pytest.mark.parametrize(
    "command",
    [
        f"test --d lesions --p {BEST} --no-boundary --device cpu",
        f"predict --p {BEST} --source image.png --out predictions --device cpu",
    ],
)
def test_a_command_imports_only_plugins_that_it_is_given(command, capsys):
    assert main(command.split()) == 2
    assert "best.pt: it names plugins that are not imported: stranger" in (error := capsys.readouterr().err)
    assert error.endswith("if you trust their code, name them in --plugins\n")
    assert not FLAG.exists()
    assert main([*command.split(), "--plugins", "stranger"]) == 0
    assert FLAG.exists()


def test_a_plugin_that_the_program_has_imported_needs_no_name():
    importlib.import_module("stranger")
    assert load([]).config.run.plugins == ("stranger",)


def test_naming_one_plugin_does_not_allow_another():
    Path("own.py").write_text("")
    with pytest.raises(ValueError, match=REFUSED):
        load(["own"])
    assert not FLAG.exists()


def test_resuming_imports_the_plugins_of_the_run_s_config():
    with PreparedSet.open("data/lesions.h5") as prepared:
        build_split("ratio-60-20-20-1", prepared).save(RUN / "split.txt")
    (RUN / "config.yaml").write_text(load_config().dump())
    with pytest.raises(ValueError, match=rf"last.pt: it {REFUSED}run.plugins of {RUN}/config.yaml"):
        plan_resumed(RUN)
    assert not FLAG.exists()
    (RUN / "config.yaml").write_text("run: {plugins: [stranger]}\n")
    assert plan_resumed(RUN).config.run.plugins == ("stranger",)
    assert FLAG.exists()


def test_weights_alone_are_loaded_without_plugins():
    mhsvm.load_weights(mhsvm.create_model("ultralight_vm_unet", d_state=2), read_checkpoint(BEST))
    mhsvm.load_weights(mhsvm.create_model("ultralight_vm_unet", d_state=2), BEST)
    assert not FLAG.exists()
