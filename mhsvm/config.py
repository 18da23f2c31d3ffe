"""All settings with their defaults and types. A default of None takes a float or none.

A node that is named after a class or function holds the arguments of that class or function. Nodes of entries that
plugins register come from the caller. Only `mhsvm.assemble` reads a config, and this file imports
nothing of mhsvm but the reader of text files.
"""

import difflib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from mhsvm.text_file import read_text

_AT_LEAST = {
    "data.size": 1,
    "train.epochs": 1,
    "train.batch_size": 1,
    "train.accumulation": 1,
    "train.clip_norm": 0,
    "train.ema_decay": 0,
    "evaluation.batch_size": 1,
}
_PLUGINS = "run.plugins"
_TRUE, _FALSE = ("true", "on", "yes", "1"), ("false", "off", "no", "0")

# Names of modules to import -> group -> name of an entry -> its arguments with their defaults.
Extend = Callable[[tuple[str, ...]], Mapping[str, Mapping[str, Mapping[str, object]]]]

DEFAULTS = CfgNode(
    {
        "run": {
            # Subfolder of the run in `folder`; empty takes the name of the config file.
            "name": "",
            "folder": "results",
            "seed": 42,
            # "auto" is the GPU if there is one, else the CPU.
            "device": "auto",
            # Modules that register networks, mixers, losses, … of your own; imported before the rest is read.
            "plugins": (),
        },
        "data": {
            # Name of a set in data/ (isic2017 is data/isic2017.h5 or data/isic2017/), or a path.
            "set": "isic2017",
            "split": "wu-sorted",
            # Side length in pixels for folders that are used without preparing a set first.
            "size": 256,
            "normalization": "minmax",
            "augmentation": "ultralight",
            # Train on the fractional coverage that resizing leaves at a mask's boundary, instead of 0 and 1.
            "soft_targets": False,
            # Memory for the images: device, stream, or auto (the device if they fit in a quarter of its free memory).
            "placement": "auto",
        },
        "model": {
            "name": "ultralight_vm_unet",
            "num_classes": 1,
            "in_channels": 3,
            # Backend of the operations; the environment variable MHSVM_BACKEND takes precedence.
            "backend": "auto",
            # Initial checkpoint: one of mhsvm, a published one, or VMamba-S's encoder for vm_unet.
            "weights": "",
            "ultralight_vm_unet": {
                "channels": (8, 16, 24, 32, 48, 64),
                "branches": 4,
                "split_att": "fc",
                "bridge": True,
                "d_state": 16,
                "d_conv": 4,
                "expand": 2,
                "init": "paper",
                # Sequence mixer of the PVM layers; d_state, d_conv and expand go to it if it takes them.
                "mixer": "mamba",
            },
            "mhs_vm": {
                "patterns": ("C", "X", "S", "Z"),
                "gate": "relu",
                # None takes the gate's default: 0.5 for relu, 0 for the others.
                "gate_threshold": None,
                "gate_learnable": False,
                "gate_power": 2.0,
                "project": True,
                "dims": (96, 192, 384, 768),
                "depths": (2, 2, 2, 2),
                "decoder_depths": (2, 2, 2, 1),
                "d_state": 16,
                "drop_path_rate": 0.2,
            },
            "vm_unet": {
                "dims": (96, 192, 384, 768),
                "depths": (2, 2, 2, 2),
                "decoder_depths": (2, 2, 2, 1),
                "d_state": 16,
                "drop_path_rate": 0.2,
            },
        },
        # A node for each mixer with arguments of its own.
        "mixer": {},
        "loss": {
            # bce_dice for one class, ce_dice for several.
            "name": "bce_dice",
            "bce_dice": {"bce_weight": 1.0, "dice_weight": 1.0, "smooth": 1.0},
            "ce_dice": {"ce_weight": 1.0, "dice_weight": 1.0, "smooth": 1.0},
        },
        "optimizer": {
            "name": "AdamW",
            # False excludes A_log and D of the scans from weight decay.
            "decay_all": True,
            "Adadelta": {"lr": 0.01, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.05},
            "Adagrad": {"lr": 0.01, "lr_decay": 0.0, "eps": 1e-10, "weight_decay": 0.05},
            "Adam": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-4, "amsgrad": False},
            "AdamW": {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 1e-2, "amsgrad": False},
            "Adamax": {"lr": 2e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.0},
            "ASGD": {"lr": 0.01, "lambd": 1e-4, "alpha": 0.75, "t0": 1e6, "weight_decay": 0.0},
            "RMSprop": {
                "lr": 0.01,
                "momentum": 0.0,
                "alpha": 0.99,
                "eps": 1e-8,
                "centered": False,
                "weight_decay": 0.0,
            },
            "Rprop": {"lr": 0.01, "etas": (0.5, 1.2), "step_sizes": (1e-6, 50.0)},
            "SGD": {"lr": 0.01, "momentum": 0.9, "dampening": 0.0, "nesterov": False, "weight_decay": 0.05},
        },
        # Stepped once per epoch.
        "schedule": {
            "name": "CosineAnnealingLR",
            "StepLR": {"step_size": 50, "gamma": 0.5},
            "MultiStepLR": {"milestones": (60, 120, 150), "gamma": 0.1},
            "ExponentialLR": {"gamma": 0.99},
            "CosineAnnealingLR": {"T_max": 50, "eta_min": 1e-5},
            "ReduceLROnPlateau": {
                "mode": "min",
                "factor": 0.1,
                "patience": 10,
                "threshold": 1e-4,
                "threshold_mode": "rel",
                "cooldown": 0,
                "min_lr": 0.0,
                "eps": 1e-8,
            },
            "CosineAnnealingWarmRestarts": {"T_0": 50, "T_mult": 2, "eta_min": 1e-6},
            "WarmupMultiStepLR": {"warmup_epochs": 10, "milestones": (125, 225), "gamma": 0.1},
            "WarmupCosineLR": {"warmup_epochs": 20, "T_max": 250, "eta_min": 0.0},
        },
        "train": {
            "epochs": 250,
            "batch_size": 8,
            # Batches whose gradients are accumulated before each optimizer step.
            "accumulation": 1,
            # Largest allowed norm of all gradients together; 0 turns clipping off.
            "clip_norm": 0.0,
            # eager, graph (CUDA graphs), compile (torch.compile, with CUDA graphs on a GPU) or auto: graph on a GPU.
            "step": "auto",
            # bfloat16 runs the network's forward and backward pass under autocast. Weights, scan states, gate
            # statistics, loss and validation stay in float32.
            "precision": "float32",
            # Allow TF32: a GPU rounds the factors of float32 products to 10 mantissa bits.
            "tf32": False,
            # Bitwise equal runs on the same device, at some cost in speed.
            "deterministic": False,
            # Decay of an exponential moving average of the weights, such as 0.999. The average is validated and saved
            # as the best checkpoint. 0 turns it off.
            "ema_decay": 0.0,
        },
        "evaluation": {
            "batch_size": 8,
            # A pixel is lesion if its probability is at least this.
            "threshold": 0.5,
        },
    }
)


def load_config(
    path: str | Path | None = None, overrides: Sequence[str] = (), *, extend: Extend | None = None
) -> CfgNode:
    """Read a config: the defaults, then a YAML file, then `KEY VALUE` pairs, converted to the types of their keys.

    Args:
        path: YAML file with the settings that differ from the defaults; None takes the defaults.
        overrides: Alternating dotted keys and values, as on a command line.
        extend: Imports the modules of `run.plugins` and returns the arguments of entries that `DEFAULTS` lacks;
            see `mhsvm.assemble.read_config`.
    Returns:
        A frozen config.
    Raises:
        ValueError: A key is unknown (the nearest is named), a value has the wrong type, or a key has no value.
        FileNotFoundError: The file does not exist.
    """
    if len(overrides) % 2:
        raise ValueError(f"settings are pairs KEY VALUE, but {overrides[-1]!r} at the end has no value: add one")
    pairs = list(zip(overrides[::2], overrides[1::2], strict=True))
    values = {} if path is None else _read_yaml(Path(path))
    config = _defaults([*_leaves(values), *pairs], extend)
    _merge(config, values, source=str(path))
    for key, value in pairs:
        set_value(config, key, value)
    config.freeze()
    return config


def config_from_dict(values: Mapping, *, extend: Extend | None = None) -> CfgNode:
    """Rebuild a config from the values in a checkpoint; settings that it lacks keep their defaults.

    Args:
        values: From `to_dict`.
        extend: See `load_config`.
    Raises:
        ValueError: See `load_config`.
    """
    config = _defaults(list(_leaves(values)), extend)
    _merge(config, values, source="the recorded config")
    config.freeze()
    return config


def _defaults(settings: Sequence[tuple[str, object]], extend: Extend | None) -> CfgNode:
    """`DEFAULTS`, and a node for each entry that only the plugins named in the settings know."""
    config = DEFAULTS.clone()
    named = [value for key, value in settings if key.lower() == _PLUGINS]
    modules = _typed(named[-1], (), _PLUGINS) if named else ()
    for group, entries in (extend(modules) if extend else {}).items():
        for name, arguments in entries.items():
            if name not in config[group]:
                config[group][name] = CfgNode(dict(arguments))
    return config


def read_value(path: str | Path, key: str) -> Any:
    """Read a single key of a config file, or its default; the other settings are not checked.

    Raises:
        ValueError: The file is no YAML, the key is unknown, or the value does not fit its type.
        FileNotFoundError: The file does not exist.
    """
    config = DEFAULTS.clone()
    for name, value in _leaves(_read_yaml(Path(path))):
        if name.lower() == key:
            set_value(config, name, value)
    return get_value(config, key)


def to_dict(config: CfgNode) -> dict:
    """Convert a config to plain dictionaries, lists, strings and numbers."""
    return {
        key: to_dict(value) if isinstance(value, CfgNode) else (list(value) if isinstance(value, tuple) else value)
        for key, value in config.items()
    }


def get_value(config: CfgNode, key: str) -> Any:
    """Look up the value of a dotted key.

    Raises:
        ValueError: The key is unknown or names a group.
    """
    *groups, name = _find(config, key)
    for group in groups:
        config = config[group]
    return config[name]


def set_value(config: CfgNode, key: str, value: Any) -> None:
    """Set a dotted key of a config that is not frozen, converting the value to the type of the key.

    Raises:
        ValueError: The key is unknown or names a group, or the value does not fit the type of the key.
    """
    *groups, name = _find(config, key)
    for group in groups:
        config = config[group]
    path = ".".join([*groups, name])
    config[name] = _typed(value, config[name], path)
    if path in _AT_LEAST and config[name] < _AT_LEAST[path]:
        raise ValueError(f"{path} is at least {_AT_LEAST[path]}, not {config[name]}")


def _read_yaml(path: Path) -> Mapping:
    if not path.is_file():
        raise FileNotFoundError(f"config {path} does not exist: check the path")
    # BaseLoader keeps every scalar as text, because YAML's guesses differ from the types here (1e-3 is a string)
    try:
        values = yaml.load(read_text(path), Loader=yaml.BaseLoader) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{path} must hold settings as `group: {{key: value}}`, not a {type(values).__name__}")
    return values


def _merge(config: CfgNode, values: Mapping, *, source: str) -> None:
    for key, value in _leaves(values):
        try:
            set_value(config, key, value)
        except ValueError as error:
            raise ValueError(f"{source}: {error}") from error


def _leaves(values: Mapping, prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _find(config: CfgNode, key: str) -> list[str]:
    """Split a dotted key into parts, spelled as in the defaults; the case of the key does not matter."""
    parts: list[str] = []
    node: Any = config
    for part in key.split("."):
        names = {name.lower(): name for name in node} if isinstance(node, CfgNode) else {}
        if part.lower() not in names:
            raise ValueError(f"unknown setting {key!r}; {_nearest(config, key)}")
        parts.append(names[part.lower()])
        node = node[parts[-1]]
    if isinstance(node, CfgNode):
        raise ValueError(f"{key!r} is a group of settings, not one: {', '.join(f'{key}.{name}' for name in node)}")
    return parts


def _nearest(config: CfgNode, key: str) -> str:
    known = {name.lower(): name for name, _ in _leaves(config)}
    wanted = key.lower()
    candidates = [name for name in known if name.rpartition(".")[2] == wanted.rpartition(".")[2]]
    # if several groups have such a key, prefer the group in use
    in_use = [name for name in candidates if any(f".{group.lower()}." in name for group in _names_in_use(config))]
    close = difflib.get_close_matches(wanted, in_use or candidates or list(known), n=1, cutoff=0.0)
    return f"the nearest is {known[close[0]]!r}"


def _names_in_use(config: CfgNode) -> list[str]:
    return [node["name"] for node in config.values() if node.get("name")]


def _typed(value: Any, default: Any, key: str) -> Any:
    try:
        if isinstance(default, tuple):
            return tuple(_scalar(item, default[0] if default else "") for item in _items(value))
        return _scalar(value, default)
    except ValueError as error:
        raise ValueError(f"{key} takes {_kind(default)}, not {value!r}") from error


def _items(value: object) -> list:
    if isinstance(value, str):
        text = value.strip()
        if text[:1] + text[-1:] in ("()", "[]"):
            text = text[1:-1]
        return [item.strip().strip("'\"") for item in text.split(",") if item.strip()]
    if isinstance(value, (list, tuple)):
        return list(value)
    return [value]


def _scalar(value: Any, default: Any) -> Any:
    if default is None:
        return None if value is None or str(value).lower() in ("none", "null") else float(value)
    if isinstance(value, (list, tuple)) or value is None:
        raise ValueError
    if isinstance(default, bool):
        text = str(value).lower()
        if text not in (*_TRUE, *_FALSE):
            raise ValueError
        return text in _TRUE
    if isinstance(value, bool) and not isinstance(default, str):
        raise ValueError
    if isinstance(value, float) and isinstance(default, int):
        raise ValueError
    return type(default)(value)


def _kind(default: object) -> str:
    if default is None:
        return "float or none"
    if isinstance(default, tuple):
        if not default:
            return "a list of str"
        return f"a list of {type(default[0]).__name__} (such as {','.join(map(str, default))})"
    return f"{type(default).__name__} (such as {default!r})"
