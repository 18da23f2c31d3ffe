"""Read checkpoint files, ours and published ones, without executing code from them."""

import os
import pickle
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mhsvm.models.checkpoint_checksum import verify_checksum
from mhsvm.text_file import first_line

# Entries that a profiler (thop) and torch's averaging of weights leave in a state dict.
_LEFTOVERS = ("total_ops", "total_params", "n_averaged")

# Prefix of all keys of a model inside DataParallel.
_WRAPPER = "module."

# Parts of keys that only wrappers add, anywhere: torch.compile, FSDP, checkpointed activations.
_WRAPPER_PARTS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")

# Entries of checkpoints that hold weights: ours and VMamba's; published trainings; Lightning's and timm's; nnU-Net's;
# MONAI's and others'; averaged weights.
_CONTAINERS = (
    *("model", "model_state_dict", "state_dict", "network_weights"),
    *("net", "network", "net_state_dict", "model_state", "weights", "params", "module"),
    *("ema", "ema_state_dict", "model_ema", "ema_model", "state_dict_ema", "params_ema"),
)


def _likely_file(folder: Path) -> Path:
    """The best checkpoint of a folder, which may be a run's; its likely name if there is none."""
    places = [folder / "checkpoints" / "best.pt", folder / "best.pt", *sorted(folder.glob("*.pt*"))]
    return next((place for place in places if place.is_file()), places[0])


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read the content of a checkpoint onto the CPU.

    It may hold tensors, plain types, and numpy scalars, as which published training checkpoints store losses.

    Args:
        path: A file that torch.save wrote.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is not a checkpoint, is damaged, or would run code.
    """
    path = Path(path)
    if path.is_dir():
        raise FileNotFoundError(f"{path} is a folder, not a checkpoint: name a file, such as {_likely_file(path)}")
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if path.suffix.lower() == ".onnx":
        raise ValueError(
            f"{path} is a model in ONNX, which mhsvm predict and mhsvm.load_predictor take: name the checkpoint that "
            "it was exported from"
        )
    if not _is_zip(path):
        raise ValueError(
            f"{path} is not a checkpoint or is incomplete: torch.save writes a zip archive. "
            "Download or copy it again; save a file from before torch 1.6 again with a newer torch"
        )
    verify_checksum(path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            foreign = _unsafe_globals(path)
            if foreign:
                raise ValueError(
                    f"{path} would run {', '.join(sorted(foreign))}, which reading weights never needs. "
                    "It was not read; save its state dict alone"
                )
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is not a checkpoint or is damaged: {first_line(str(error))}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a checkpoint is a dictionary")
    return content


def _unsafe_globals(path: Path) -> list[str]:
    try:
        return torch.serialization.get_unsafe_globals_in_checkpoint(path)
    except ValueError as error:
        # a TorchScript file, or a zip archive of other files
        raise ValueError(f"{path} is not a checkpoint: {error}. Save the state dict of the network instead") from error


def weights_in(content: Mapping[str, Any], name: str | os.PathLike = "the checkpoint") -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the marks of wrappers in its keys and the entries of a profiler.

    It is the content itself, or an entry with one of the names that frameworks use, at any depth of such entries; else
    the only entry that is a state dict.

    Args:
        content: From `read_checkpoint`.
        name: Its name in messages.
    Raises:
        ValueError: There is no state dict, there are several different ones, or it has entries that are not tensors.
    """
    found = _state_dicts_in(content)
    if not found:
        raise ValueError(f"there is no state dict in {name}; it holds {_listed(content) or 'nothing'}")
    states = [_unwrapped(state, name) for state in found.values()]
    if not all(equal_states(state, states[0]) for state in states):
        raise ValueError(
            f"{name} holds several state dicts: {', '.join(found)}. Their weights differ: pass or save one of "
            f"them alone. All its entries: {_listed(content)}"
        )
    return states[0]


def equal_states(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    """Whether two state dicts have the same keys, types and numbers."""
    return one is other or (
        one.keys() == other.keys()
        and all(one[key].dtype == other[key].dtype and torch.equal(one[key], other[key]) for key in one)
    )


def _state_dicts_in(content: Mapping[Any, Any]) -> dict[str, Mapping[str, Any]]:
    """Everything in a checkpoint that may be the weights, by its place there."""
    if any(isinstance(value, Tensor) for value in content.values()):
        return {"itself": content}
    found: dict[str, Mapping[str, Any]] = {}
    for key in _CONTAINERS:
        value = content.get(key)
        if isinstance(value, Mapping):
            inner = _state_dicts_in(value)
            found |= {key if place == "itself" else f"{key}.{place}": state for place, state in inner.items()}
    return found or {str(key): value for key, value in content.items() if _is_state_dict(value)}


def _is_state_dict(value: object) -> bool:
    return (
        isinstance(value, Mapping)
        and bool(value)
        and all(isinstance(key, str) and isinstance(item, Tensor) for key, item in value.items())
    )


def _unwrapped(state: Mapping[Any, Any], name: str | os.PathLike) -> dict[str, Tensor]:
    """Without the parts of keys that wrappers add, and a profiler's entries."""
    others = [str(key) for key, value in state.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(f"a state dict holds tensors only; these of {name} are not tensors: {_listed(others)}")
    weights = {}
    for key, value in state.items():
        for part in _WRAPPER_PARTS:
            key = key.replace(part, "")
        if key.rpartition(".")[2] not in _LEFTOVERS:
            weights[key] = value
    while weights and all(key.startswith(_WRAPPER) for key in weights):
        weights = {key.removeprefix(_WRAPPER): value for key, value in weights.items()}
    return weights


def _listed(names: Iterable[object], limit: int = 20) -> str:
    listed = [str(name) for name in names]
    more = f" … and {len(listed) - limit} more" if len(listed) > limit else ""
    return ", ".join(listed[:limit]) + more


def _is_zip(path: Path) -> bool:
    try:
        return zipfile.is_zipfile(path)
    except zipfile.BadZipFile:
        # the end of the archive is damaged
        return False


def _numpy_scalars() -> list[Any]:
    scalar = np.float64(0).__reduce__()[0]
    types = (np.bool_, np.int32, np.int64, np.float16, np.float32, np.float64)
    # numpy 2 moved the function; files name either module.
    places = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*places, (np.dtype, "numpy.dtype"), *(type(np.dtype(kind)) for kind in types)]
