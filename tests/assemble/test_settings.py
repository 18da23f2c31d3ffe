"""Configs that name entries of plugins: their modules are imported, and their arguments are settings."""

import sys

import pytest

from mhsvm.assemble import read_config, recorded_config
from mhsvm.config import load_config, to_dict
from mhsvm.defaults import DEFAULTS
from mhsvm.layers.mixers import MIXERS
from mhsvm.losses import LOSSES
from mhsvm.plugins import import_plugins

PLUGIN = """
from torch import nn
from mhsvm.layers.mixers import register_mixer
from mhsvm.losses import register_loss

@register_mixer("average")
class Average(nn.Module):
    def __init__(self, width, *, length=3, d_state=16):
        super().__init__()

@register_loss("focal")
class Focal(nn.Module):
    def __init__(self, *, gamma=2.0, names=["a", "b"]):
        super().__init__()
"""


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A module in the current folder that registers a mixer and a loss; its name."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_parts.py").write_text(PLUGIN)
    yield "own_parts"
    if sys.modules.pop("own_parts", None):
        MIXERS.remove("average")
        LOSSES.remove("focal")


def test_a_plugin_s_arguments_are_settings(plugin, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "run: {plugins: [own_parts]}\nloss: {name: focal, focal: {gamma: 1}}\nmixer: {average: {length: 5}}\n"
    )
    config = read_config(path, ["loss.focal.names", "x,y,z"])
    assert config.run.plugins == ("own_parts",)
    assert dict(config.loss.focal) == {"gamma": 1.0, "names": ("x", "y", "z")}
    # its d_state is that of the network
    assert dict(config.mixer) == {**DEFAULTS.mixer, "average": {"length": 5}}
    assert "focal" not in DEFAULTS.loss
    assert recorded_config(to_dict(config), "best.pt") == config
    with pytest.raises(ValueError, match=r"unknown setting 'loss.focal.gama'; the nearest is 'loss.focal.gamma'"):
        read_config(path, ["loss.focal.gama", "1"])


def test_a_command_line_names_plugins_too(plugin):
    assert read_config(None, ["run.plugins", plugin, "loss.focal.gamma", "3"]).loss.focal.gamma == 3.0


def test_without_its_plugin_a_setting_is_unknown():
    with pytest.raises(ValueError, match=r"unknown setting 'loss.focal.gamma'; the nearest is"):
        read_config(None, ["loss.focal.gamma", "3"])


def test_a_plugin_that_cannot_be_imported_is_named():
    message = (
        "the plugin 'no_such_module' cannot be imported: No module named 'no_such_module'. Install it, or run where"
    )
    with pytest.raises(ValueError, match=f"^{message}"):
        import_plugins(["no_such_module"])
    with pytest.raises(ValueError, match=f"^{message}"):
        read_config(None, ["run.plugins", "no_such_module"])
    with pytest.raises(ValueError, match=f"^{message}"):
        recorded_config(to_dict(load_config()), "best.pt", plugins=["no_such_module"])


def test_an_argument_without_default_is_named(registered):
    registered(LOSSES, "unfinished", lambda gamma: None)
    with pytest.raises(ValueError, match="needs a default of each argument; loss 'unfinished' has none of gamma"):
        read_config()
