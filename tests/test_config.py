import inspect
from pathlib import Path

import pytest

from mhsvm import losses, models
from mhsvm.assemble import read_config
from mhsvm.config import DEFAULTS, config_from_dict, get_value, load_config, to_dict
from mhsvm.models.registry import MODELS
from mhsvm.training.optimizers import OPTIMIZERS
from mhsvm.training.schedules import SCHEDULES

CONFIGS = sorted(Path(__file__).parents[1].glob("configs/*.yaml"))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimizer.AdamW.lr", "1", 1.0),
        ("optimizer.AdamW.lr", "-1e-3", -1e-3),
        ("train.epochs", "7", 7),
        ("data.soft_targets", "on", True),
        ("data.soft_targets", "False", False),
        ("model.mhs_vm.dims", "8,16,32,64", (8, 16, 32, 64)),
        ("model.mhs_vm.dims", "(8, 16)", (8, 16)),
        ("model.mhs_vm.dims", "8", (8,)),
        ("model.mhs_vm.patterns", "C,X,S", ("C", "X", "S")),
        ("model.mhs_vm.patterns", "['C', 'X']", ("C", "X")),
        ("optimizer.AdamW.betas", "0,0.99", (0.0, 0.99)),
        ("model.mhs_vm.gate", "off", "off"),
        ("model.mhs_vm.gate_threshold", "0", 0.0),
        ("model.mhs_vm.gate_threshold", "none", None),
        ("run.name", "on", "on"),
        ("run.name", "2017", "2017"),
        ("run.name", "1e-3", "1e-3"),
    ],
)
def test_values_take_the_type_of_their_key(key, text, value, tmp_path):
    group, _, name = key.rpartition(".")
    document = "".join(f"{'  ' * depth}{part}:\n" for depth, part in enumerate(group.split(".")))
    (tmp_path / "file.yaml").write_text(f"{document}{'  ' * (group.count('.') + 1)}{name}: {text}\n")
    for config in (load_config(None, [key, text]), load_config(tmp_path / "file.yaml")):
        got = get_value(config, key)
        assert got == value
        assert type(got) is type(value)
        if isinstance(value, tuple):
            assert [type(item) for item in got] == [type(item) for item in value]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["trian.epochs", "3"], "unknown setting 'trian.epochs'; the nearest is 'train.epochs'"),
        (["lr", "3"], "unknown setting 'lr'; the nearest is 'optimizer.AdamW.lr'"),
        (["optimizer.name", "SGD", "lr", "3"], "the nearest is 'optimizer.SGD.lr'"),
        (["train.epochs.x", "3"], "unknown setting 'train.epochs.x'"),
        (["train", "3"], "'train' is a group of settings"),
        (["train.epochs", "3.5"], "train.epochs takes int (such as 250), not '3.5'"),
        (["train.epochs", "many"], "train.epochs takes int"),
        (["data.soft_targets", "2"], "data.soft_targets takes bool"),
        (["model.mhs_vm.dims", "8,a"], "model.mhs_vm.dims takes a list of int (such as 96,192,384,768), not '8,a'"),
        (["train.epochs"], "'train.epochs' at the end has no value: add one"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match="^.*$") as error:
        load_config(None, settings)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("train: {epoch: 3}", "unknown setting 'train.epoch'; the nearest is 'train.epochs'"),
        ("train: [", "is not a YAML file"),
        ("- train", "must hold settings"),
        ("train: {epochs: }", "train.epochs takes int"),
    ],
)
def test_bad_files_are_named(text, message, tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match="^.*") as error:
        load_config(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_a_missing_file_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"^config nowhere\.yaml does not exist: check the path$"):
        load_config("nowhere.yaml")


def test_keys_ignore_capitals_and_configs_are_frozen():
    config = load_config(None, ["TRAIN.EPOCHS", "3", "optimizer.adamw.LR", "1"])
    assert (config.train.epochs, config.optimizer.AdamW.lr) == (3, 1.0)
    with pytest.raises(AttributeError):
        config.train.epochs = 4
    assert DEFAULTS.train.epochs != 3


def test_a_config_survives_its_dictionary_and_its_yaml(tmp_path):
    config = load_config(None, ["run.name", "on", "model.mhs_vm.patterns", "C,C", "optimizer.AdamW.lr", "1e-5"])
    assert config_from_dict(to_dict(config)) == config
    (tmp_path / "config.yaml").write_text(config.dump())
    assert load_config(tmp_path / "config.yaml") == config


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_shipped_configs_load(path):
    config = load_config(path)
    assert config.model.name in models.list_models()
    assert config.run.name == path.stem


def test_nodes_hold_the_arguments_of_what_they_are_named_after():
    shared = {"num_classes", "in_channels", "backend"}
    config = read_config()
    for name, network in MODELS.items():
        assert set(config.model[name]) == set(inspect.signature(network.create).parameters) - shared
    for node, registry in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES)):
        for name, constructor in registry.items():
            _, *arguments = inspect.signature(constructor).parameters
            assert set(config[node][name]) <= set(arguments), name
    for name in losses.list_losses():
        arguments = inspect.signature(type(losses.create_loss(name))).parameters
        assert set(config.loss[name]) == set(arguments) - shared, name
