"""Read checkpoint files, ours and published ones, without executing code from them."""

import os
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mhsvm.models.checkpoint_checksum import verify_checksum
from mhsvm.text_file import first_line

# Entries that a profiler (thop) leaves in a state dict.
_LEFTOVERS = ("total_ops", "total_params")

# Prefix of all keys of a model inside DataParallel.
_WRAPPER = "module."


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
    if not path.is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    if not _is_zip(path):
        raise ValueError(
            f"{path} is not a checkpoint or is incomplete: torch.save writes a zip archive. "
            "Download or copy it again; save a file from before torch 1.6 again with a newer torch"
        )
    verify_checksum(path)
    try:
        with torch.serialization.safe_globals(_numpy_scalars()):
            foreign = torch.serialization.get_unsafe_globals_in_checkpoint(path)
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


def weights_in(content: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict of a checkpoint, without the prefix of DataParallel and the entries of a profiler.

    It is the content itself, or its entry "model_state_dict" (published training checkpoints) or "model" (ours and
    VMamba's).

    Raises:
        ValueError: There is no state dict, or it has entries that are not tensors.
    """
    state = next((content[key] for key in ("model_state_dict", "model") if key in content), content)
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"there is no state dict in the checkpoint; it holds {', '.join(content) or 'nothing'}")
    others = [str(key) for key, value in state.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f"a state dict holds tensors only; these are not tensors: {', '.join(others)}")
    state = {key: value for key, value in state.items() if key.rpartition(".")[2] not in _LEFTOVERS}
    if all(key.startswith(_WRAPPER) for key in state):
        state = {key.removeprefix(_WRAPPER): value for key, value in state.items()}
    return state


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
