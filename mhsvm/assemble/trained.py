"""Trained models out of checkpoints, ours and published ones."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from mhsvm.assemble.networks import build_model, choose_backend
from mhsvm.assemble.settings import recorded_config
from mhsvm.models import load_weights
from mhsvm.models.checkpoint_file import read_checkpoint, weights_in
from mhsvm.models.recognition import identify, recognize
from mhsvm.models.registry import MODELS
from mhsvm.training.checkpoint import FORMAT


@dataclass(frozen=True)
class Trained:
    """A model with its weights, and what is known of how it was trained.

    Attributes:
        path: The checkpoint.
        model: In evaluation mode, on its device.
        config: The recorded one; of a published file, the defaults with the model that its keys tell.
        published: The file records nothing but weights, as those of the original projects do.
        data: What our checkpoints record of the set: name, checksum, split, its hash and ids; else None.
        notes: What was assumed, in sentences for the user.
        backend: Of the model, and of all that is computed with it.
    """

    path: Path
    model: nn.Module
    config: CfgNode
    published: bool
    data: dict | None
    notes: tuple[str, ...]
    backend: str = "auto"

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels that it was trained at; of a published file, the default."""
        h, w = self.data["size"] if self.data else (self.config.data.size, self.config.data.size)
        return h, w

    @property
    def checksum(self) -> str:
        """sha256 of the file, in hex."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def num_classes(self) -> int:
        """1 for lesion or not, else the number of classes that it tells apart."""
        return self.config.model.num_classes

    @property
    def batch_size(self) -> int:
        """Images at a time, as its config evaluates."""
        return self.config.evaluation.batch_size


def load_trained(
    path: str | Path,
    *,
    model_name: str | None = None,
    gate_threshold: float | None = None,
    backend: str | None = None,
    device: torch.device,
) -> Trained:
    """Build the model of a checkpoint, ours or a published one, and load its weights.

    Args:
        path: The checkpoint.
        model_name: Overrides the model that the file tells.
        gate_threshold: Overrides the threshold of MHS-VM's gate.
        backend: Overrides the scan's backend, see `build_model`.
        device: Where the model goes.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, its weights do not fit the model, or there is no gate to set.
    """
    content = read_checkpoint(path)
    ours = content.get("format") == FORMAT
    settings = content["config"] if ours else _published_settings(content, model_name)
    config, notes = recorded_config(settings, path), []
    config.defrost()
    if model_name is not None:
        config.model.name = model_name
    if not ours:
        notes.append(
            f"the file does not record its preprocessing: taking images of {config.data.size} x {config.data.size}, "
            f"{config.data.normalization} normalisation and threshold {config.evaluation.threshold}"
        )
        assumed = [item for format in MODELS[config.model.name].formats for item in format.assumed.items()]
        for argument, value in assumed:
            if argument != "gate_threshold" or gate_threshold is None:
                config.model[config.model.name][argument] = value
                notes.append(f"the file does not hold its {argument.replace('_', ' ')}: taking its authors' {value}")
    if gate_threshold is not None:
        _set_gate_threshold(config, gate_threshold)
    config.model.weights = ""
    config.freeze()
    backend = choose_backend(config, backend)
    model = build_model(config, backend=backend)
    load_weights(model, content)
    return Trained(
        path=Path(path),
        model=model.to(device).eval(),
        config=config,
        published=not ours,
        data=content.get("data") if ours else None,
        notes=tuple(notes),
        backend=backend,
    )


def _published_settings(content: Mapping, model_name: str | None) -> dict:
    found = identify(weights_in(content))
    if model_name is not None and (found is None or found.format is None):
        # a state dict without its config shows no arguments: the defaults, which strict loading holds it to
        return {"model": {"name": model_name}}
    name, arguments = recognize(content)
    if model_name is not None and model_name != name:
        raise ValueError(f"the file holds the weights of {name}, not of {model_name}")
    shared = {key: arguments.pop(key) for key in ("num_classes", "in_channels") if key in arguments}
    loss = "bce_dice" if shared.get("num_classes", 1) == 1 else "ce_dice"
    return {"model": {"name": name, **shared, name: arguments}, "loss": {"name": loss}}


def _set_gate_threshold(config: CfgNode, gate_threshold: float) -> None:
    node = config.model.mhs_vm
    if config.model.name != "mhs_vm" or node.gate == "none":
        raise ValueError(f"{config.model.name} has no gate: leave --gate-threshold out")
    if node.gate_learnable:
        raise ValueError("the gate's thresholds of this checkpoint are learnt: leave --gate-threshold out")
    node.gate_threshold = gate_threshold
