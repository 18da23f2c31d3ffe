"""Weights of our checkpoints and of published files, loaded strictly into our networks."""

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor, nn

from mhsvm.models.checkpoint_file import read_checkpoint, weights_in
from mhsvm.models.key_maps import merge_twins, published_sources
from mhsvm.models.mhs_vm import MHSVM
from mhsvm.models.recognition import Layout, identify, recognise, scan_heads
from mhsvm.models.ultralight_vm_unet import UltraLightVMUNet
from mhsvm.models.vm_unet import VMUNet

__all__ = ["LoadReport", "load_weights", "read_checkpoint", "recognise"]

_CLASSES = {"mhs_vm": MHSVM, "vm_unet": VMUNet, "ultralight_vm_unet": UltraLightVMUNet}


@dataclass(frozen=True)
class LoadReport:
    """What `load_weights` did.

    Attributes:
        filled: Our tensors that now hold weights of the file.
        unfilled: Our tensors that kept their values.
        unused: Tensors of the file, by its own names, that went nowhere.
    """

    filled: tuple[str, ...]
    unfilled: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"filled {len(self.filled)} tensors"]
        if self.unfilled:
            lines.append(f"not filled, {len(self.unfilled)}: {_listed(self.unfilled)}")
        if self.unused:
            lines.append(f"not used of the file, {len(self.unused)}: {_listed(self.unused)}")
        return "\n".join(lines)


def load_weights(model: nn.Module, source: str | os.PathLike | Mapping[str, Any]) -> LoadReport:
    """Fill a network with the weights of a file, all of them or none.

    Our checkpoints and state dicts, and the published files of MHS-VM, VM-UNet and UltraLight VM-UNet, must fit
    exactly. The one exception is a file of VMamba's encoder for VM-UNet: encoder stage i also fills the blocks
    of the decoder stage of its size, as the authors of VM-UNet do, and the report lists what was not filled.

    Args:
        model: From `create_model`.
        source: A checkpoint file, its content, or a state dict.
    Returns:
        What was filled.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, is of another network, or does not fit; the model is unchanged.
            The message lists all that is missing, unexpected and of another shape.
    """
    content = source if isinstance(source, Mapping) else read_checkpoint(source)
    state = weights_in(content)
    name, layout = identify(state) or (None, Layout.OURS)
    is_known = isinstance(model, tuple(_CLASSES.values()))
    if name is not None and not isinstance(model, _CLASSES[name]) and (is_known or layout is not Layout.OURS):
        raise ValueError(
            f"the file holds weights of {name}, under the names of {layout.value}; the model is a "
            f"{type(model).__name__}. Build it with create_model({name!r}, ...)"
        )
    if layout is Layout.ENCODER:
        weights, unused = _encoder_weights(model, state)
    elif layout is Layout.PUBLISHED:
        weights, unused = _published_weights(name, model, state), ()
    else:
        _check_fit(model, {key: value.shape for key, value in model.state_dict().items()}, state)
        weights, unused = state, ()
    # Checked above; VMamba's encoder alone leaves some tensors as they are.
    unfilled = tuple(model.load_state_dict(weights, strict=False).missing_keys)
    return LoadReport(filled=tuple(weights), unfilled=unfilled, unused=unused)


def _published_weights(name: str, model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    patterns: tuple[str, ...] = ()
    if isinstance(model, MHSVM):
        state, patterns = merge_twins(state), scan_heads(state)
        if model.patterns != patterns:
            raise ValueError(
                f"the file's heads scan along {', '.join(patterns)}, in this order; the model's along "
                f"{', '.join(model.patterns)}. Build it with patterns={patterns}"
            )
        if any(key.endswith(".attention.threshold") for key in model.state_dict()):
            raise ValueError(
                "published files do not hold the gate's threshold, which the model is to learn. "
                "Build it with gate_learnable=False and their threshold as gate_threshold"
            )
    sources = published_sources(name, model.state_dict(), patterns=patterns)
    expected = {key: source.shape for source in sources.values() for key in source.keys}
    _check_fit(model, expected, state)
    return {key: source.take_from(state) for key, source in sources.items()}


def _encoder_weights(model: nn.Module, state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    own = model.state_dict()
    last = len(model.encoder) - 1

    def encoder_key(key: str) -> str:
        return re.sub(r"^layers_up\.(\d+)\.", lambda stage: f"layers.{last - int(stage[1])}.", key)

    weights, used, wrong = {}, set(), []
    for key, source in published_sources("vm_unet", own).items():
        their_key = encoder_key(source.keys[0])
        if their_key not in state:
            continue
        if state[their_key].shape != source.shape:
            wrong.append(_wrong_shape(their_key, state[their_key], source.shape))
            continue
        weights[key] = source.take_from({source.keys[0]: state[their_key]})
        used.add(their_key)
    if wrong:
        raise ValueError(
            f"VMamba's encoder does not fit the model:\n  of another shape: {_listed(wrong)}\n"
            "VMamba-S has dims=(96, 192, 384, 768), d_state=16 and in_channels=3"
        )
    return weights, tuple(key for key in state if key not in used)


def _check_fit(model: nn.Module, expected: Mapping[str, Size], state: Mapping[str, Tensor]) -> None:
    problems = {
        "missing": [key for key in expected if key not in state],
        "unexpected": [key for key in state if key not in expected],
        "of another shape": [
            _wrong_shape(key, state[key], shape)
            for key, shape in expected.items()
            if key in state and state[key].shape != shape
        ],
    }
    if any(problems.values()):
        lines = [f"  {kind}, {len(found)}: {_listed(found)}" for kind, found in problems.items() if found]
        raise ValueError(
            f"the weights do not fit this {type(model).__name__}:\n" + "\n".join(lines) + "\n"
            "Build the model with the arguments it was trained with"
        )


def _wrong_shape(key: str, value: Tensor, expected: Size) -> str:
    return f"{key} (file {tuple(value.shape)}, model {tuple(expected)})"


def _listed(names: Sequence[str], limit: int = 20) -> str:
    more = f" … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
