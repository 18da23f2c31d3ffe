import inspect
from pathlib import Path

import pytest

from mhsvm import losses, models
from mhsvm.assemble import read_config
from mhsvm.config import config_from_dict, get_value, load_config, pair_up, to_dict
from mhsvm.defaults import DEFAULTS
from mhsvm.models.registry import MODELS
from mhsvm.training.optimizers import OPTIMIZERS
from mhsvm.training.schedules import SCHEDULES

CONFIGS = sorted(Path(__file__).parents[1].glob("configs/*.yaml"))


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("optimizer.AdamW.lr", "1", 1.0),
        ("optimizer.AdamW.lr", "1e-3", 1e-3),
        ("model.mhs_vm.gate_threshold", "-1e-3", -1e-3),
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
        (["train.epochs=3", "train.batch_size"], "'train.batch_size' at the end has no value: add one"),
        (["train.epochs="], "train.epochs takes int (such as 250), not ''"),
        (["train.epochs", "010"], "train.epochs takes int (such as 250), not '010'"),
        (["train.epochs", "1:30"], "train.epochs takes int (such as 250), not '1:30'"),
        (["train.epochs", "9" * 5000], "train.epochs takes int (such as 250), not '999"),
        (["optimizer.AdamW.lr", "nan"], "optimizer.AdamW.lr takes float (such as 0.001), not 'nan'"),
        (["optimizer.AdamW.lr", "1e999"], "optimizer.AdamW.lr takes float (such as 0.001), not '1e999'"),
        (["model.mhs_vm.gate_threshold", "-inf"], "takes float or none, not '-inf'"),
        (["optimizer.AdamW.betas", "0.9,nan"], "optimizer.AdamW.betas takes a list of float"),
        (["optimizer.AdamW.betas", "0.9"], "optimizer.AdamW.betas has 2 values, not 1: 0.9"),
        (["optimizer.AdamW.betas", "0.9,1"], "each of optimizer.AdamW.betas is less than 1, not 1.0"),
        (["data.set", ""], "data.set is not empty; leave it out for its default"),
        (["model.mhs_vm.patterns", "[]"], "model.mhs_vm.patterns is not empty"),
        (["data.set", "a\0b"], "data.set takes str (such as 'isic2017'), not 'a\\x00b'"),
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
        ("train: {epochs: 3, epochs: 4}", "the key 'epochs' is there twice: remove one of them"),
        ("train: {epochs: 3, EPOCHS: 4}", "the key 'EPOCHS' is there twice"),
        ("train: {epochs: 3}\ntrain.epochs: 4", "train.epochs is there twice"),
        ("train: {}\ntrain: {}", "the key 'train' is there twice"),
        ("train: 3", "'train' is a group of settings"),
        ("train: {epochs: 010}", "train.epochs takes int (such as 250), not '010'"),
        ("train: {epochs: [3]}", "train.epochs takes int (such as 250), not ['3']"),
        ("run: {name: [a]}", "run.name takes str (such as ''), not ['a']"),
        ("? [a]\n: 3", "a key is the name of a setting or group"),
        ("train: *nowhere", "undefined alias"),
        ("data: {set: null}", "data.set takes str (such as 'isic2017'), not None"),
        ("train: &a {epochs: *a}", "no alias stands for itself"),
        ("a: 1\n--- \nb: 2", "expected a single document"),
        ("train: {<<: 3}", "<< takes a group, or a list of groups"),
        ("run: {name: 'a\0b'}", "special characters are not allowed"),
        ("train: " + "[" * 500 + "]" * 500, "settings are nested at most 20 deep"),
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


def test_a_folder_is_no_config(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"is a folder: name a file, such as .*config\.yaml$"):
        load_config(tmp_path)


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


def test_settings_are_pairs_or_joined_by_equals_signs():
    words = ["train.epochs=3", "data.set", "a=b.h5", "run.name=x=y", "TRAIN.batch_size", "4", "optimizer.AdamW.lr=1e-5"]
    config = load_config(None, words)
    assert (config.train.epochs, config.train.batch_size) == (3, 4)
    assert (config.data.set, config.run.name, config.optimizer.AdamW.lr) == ("a=b.h5", "x=y", 1e-5)
    paired = pair_up(words)
    assert paired[:6] == ["train.epochs", "3", "data.set", "a=b.h5", "run.name", "x=y"]
    assert pair_up(paired) == paired


def test_all_bad_settings_are_listed_at_once(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("train: {epochs: 0, clip_norm: -1, epoch: 3}\n")
    with pytest.raises(ValueError, match="^5 settings cannot be used:\n") as error:
        load_config(path, ["data.set", "", "optimizer.AdamW.lr", "nan"])
    assert str(error.value).splitlines()[1:] == [
        f"  {path}: train.epochs is at least 1, not 0",
        f"  {path}: train.clip_norm is at least 0, not -1.0",
        f"  {path}: unknown setting 'train.epoch'; the nearest is 'train.epochs'",
        "  data.set is not empty; leave it out for its default",
        "  optimizer.AdamW.lr takes float (such as 0.001), not 'nan'",
    ]


def test_anchors_merges_and_empty_groups_are_read(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(
        "optimizer:\n"
        "  Adam: &common {lr: 2e-3, eps: 1e-7}\n"
        "  AdamW: {<<: *common, lr: 5e-4}\n"
        "train:\n"
        "  # epochs: 3\n"
        "model: {weights: ~, mhs_vm: {gate_threshold: ~}}\n"
        "run: {name: }\n"
    )
    config = load_config(path)
    assert (config.optimizer.AdamW.lr, config.optimizer.AdamW.eps, config.optimizer.Adam.lr) == (5e-4, 1e-7, 2e-3)
    assert (config.model.weights, config.run.name, config.model.mhs_vm.gate_threshold) == ("", "", None)
    assert config.train == DEFAULTS.train


def test_a_config_that_is_no_text_is_named(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_bytes("run: {name: é}".encode("utf-16"))
    with pytest.raises(ValueError, match=r"bad\.yaml, line 1, is not UTF-8 text"):
        load_config(path)


def test_settings_of_a_recorded_config_are_not_nested_without_end():
    nested: dict = {}
    for _ in range(50):
        nested = {"train": nested or 1}
    with pytest.raises(ValueError, match="settings are nested at most 20 deep"):
        config_from_dict(nested)
