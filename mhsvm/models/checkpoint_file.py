"""Checkpoint files as they lie on a disk, ours and published ones, read without executing anything."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

# What a profiler leaves in a state dict.
_LEFTOVERS = ("total_ops", "total_params")

# Prefix of all keys of a model inside DataParallel.
_WRAPPER = "module."


def read_checkpoint(path: str | os.PathLike) -> dict[str, Any]:
    """Read a checkpoint's content onto the CPU.

    Only tensors, plain types and numpy scalars (published training checkpoints hold losses as such) are read.

    Args:
        path: A file that torch.save wrote.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It is no checkpoint, is damaged, or wants to run code.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not zipfile.is_zipfile(path):
        raise ValueError(
            f"{path} is no checkpoint or is cut short: torch.save writes a zip archive. "
            "Download or copy it again; a file from before torch 1.6 has to be saved anew"
        )
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
            if foreign:
                raise ValueError(
                    f"{path} wants to run {', '.join(sorted(foreign))}, which reading weights never needs. "
                    "It was not read; save its state dict alone"
                )
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError) as error:
        raise ValueError(f"{path} is no checkpoint or is damaged: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}; a checkpoint is a dictionary")
    return content


def weights_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of a checkpoint's content, without the prefixes of wrappers and a profiler's leftovers.

    It is the content itself, or stands under "model_state_dict" (published training checkpoints) or "model"
    (ours, and VMamba's).

    Raises:
        ValueError: There is none.
    """
    state = next((content[key] for key in ("model_state_dict", "model") if key in content), content)
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"there is no state dict in the checkpoint; it holds {', '.join(content) or 'nothing'}")
    strange = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f"a state dict holds tensors only; these are none: {', '.join(strange)}")
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _LEFTOVERS}
    if all(key.startswith(_WRAPPER) for key in state):
        state = {key.removeprefix(_WRAPPER): value for key, value in state.items()}
    return state


def _numpy_scalars() -> list[Any]:
    scalar = np.float64(0).__reduce__()[0]
    types = (np.bool_, np.int32, np.int64, np.float16, np.float32, np.float64)
    # numpy moved the function in version 2: files name either place.
    places = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    return [*places, (np.dtype, "numpy.dtype"), *(type(np.dtype(kind)) for kind in types)]
