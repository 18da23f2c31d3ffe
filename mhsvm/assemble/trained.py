"""Trained models from checkpoints, ours and published ones."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import nn
from yacs.config import CfgNode

from mhsvm.assemble.networks import build_model, check_backend_runs, choose_backend, forget_initial_weights
from mhsvm.assemble.settings import recorded_config
from mhsvm.errors import Errors
from mhsvm.files import StrPath
from mhsvm.models.checkpoint_file import read_checkpoint, weights_in
from mhsvm.models.loading import load_state
from mhsvm.models.mhs_vm import MHSVM
from mhsvm.models.pretrained import find_checkpoint
from mhsvm.models.recognition import Identity, identify, published_network
from mhsvm.models.registry import MODELS
from mhsvm.models.weight_format import State
from mhsvm.plugins import import_plugins
from mhsvm.prepare.sets import DEFAULT_SIZE
from mhsvm.training.checkpoint import check_parts, is_ours


@dataclass(frozen=True)
class Trained:
    """A model with its weights, and the record of its training.

    Attributes:
        path: The checkpoint; None for a model that was trained without a run folder.
        model: In evaluation mode, on its device.
        config: The recorded config; for a published file, the defaults with the model that its keys belong to.
        published: The file holds only weights, like the files of the original projects.
        data: Our checkpoints' record of the set: name, checksum, size, split, its hash and ids; else None.
        notes: Assumptions, in sentences for the user.
        backend: The backend of the model, and of the operations around it.
    """

    path: Path | None
    model: nn.Module
    config: CfgNode
    published: bool
    data: dict | None
    notes: tuple[str, ...] = ()
    backend: str = "auto"

    @property
    def name(self) -> str:
        """The path of the checkpoint, for messages."""
        return "a run in memory" if self.path is None else str(self.path)

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) in pixels of the training images; if they are not recorded, the default."""
        h, w = self.data["size"] if self.data else [self.config.data.size or DEFAULT_SIZE] * 2
        return h, w

    @cached_property
    def checksum(self) -> str | None:
        """sha256 of the checkpoint, in hex; None without a file."""
        return None if self.path is None else hashlib.sha256(self.path.read_bytes()).hexdigest()

    @property
    def num_classes(self) -> int:
        """1 for lesion or background, else the number of classes."""
        return self.config.model.num_classes

    @property
    def normalization(self) -> str:
        """Name of the normalization of its images."""
        return self.config.data.normalization

    @property
    def threshold(self) -> float:
        """Probability at and above which a pixel is lesion, by its config."""
        return float(self.config.evaluation.threshold)

    @property
    def batch_size(self) -> int:
        """Images per batch of an evaluation, by its config."""
        return self.config.evaluation.batch_size

    def describe(self) -> dict:
        """The facts about the checkpoint that the summary of a test records."""
        return {
            "file": None if self.path is None else self.path.name,
            "sha256": self.checksum,
            "published": self.published,
            "size": list(self.size),
        }


def load_trained(
    path: StrPath,
    *,
    model_name: str | None = None,
    gate_threshold: float | None = None,
    heads: int | None = None,
    backend: str | None = None,
    plugins: Sequence[str] = (),
    device: torch.device,
) -> Trained:
    """Build the model of a checkpoint, ours or a published one, and load its weights.

    Args:
        path: The checkpoint, or a name from `mhsvm.list_pretrained()`.
        model_name: Overrides the model that the keys of the file belong to.
        gate_threshold: Overrides the threshold of MHS-VM's gate.
        heads: Number of scan heads that the model must have; None checks nothing.
        backend: Overrides the backend, see `build_model`.
        plugins: Modules to import first, such as those that the checkpoint names; it imports none by itself.
        device: The device of the model.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, it names plugins that are not imported, its weights do not fit the
            model, there is no gate to set, or the number of heads differs.
    """
    import_plugins(plugins)
    path = find_checkpoint(path)
    content = read_checkpoint(path)
    ours = is_ours(content)
    if ours:
        check_parts(content, path, "config", "model")
    state = weights_in(content, path)
    found = identify(state)
    settings = content["config"] if ours else _published_settings(found, state, model_name)
    config = recorded_config(settings, path)
    notes: list[str] = []
    config.defrost()
    if model_name is not None:
        config.model.name = model_name
    if not ours:
        notes += _assume(config, keep_gate=gate_threshold is not None)
    errors = Errors()
    if gate_threshold is not None:
        with errors.collected():
            _set_gate_threshold(config, gate_threshold)
    forget_initial_weights(config)
    config.freeze()
    backend = choose_backend(config, backend)
    with errors.collected():
        check_backend_runs(backend, device)
    model = build_model(config, backend=backend)
    unused = load_state(model, state, found).unused
    if unused:
        notes.append(f"not used of the file: {len(unused)} tensors, beginning with {unused[0]}")
    if heads is not None:
        with errors.collected():
            _check_heads(model, heads)
    errors.raise_if_any(f"choices do not fit {path}")
    return Trained(
        path=path,
        model=model.to(device).eval(),
        config=config,
        published=not ours,
        data=content.get("data") if ours else None,
        notes=tuple(notes),
        backend=backend,
    )


def _assume(config: CfgNode, *, keep_gate: bool) -> list[str]:
    """Set all that a published file does not hold, and return a note about each."""
    config.data.size = config.data.size or DEFAULT_SIZE
    notes = [
        f"the file does not record its preprocessing: taking images of {config.data.size} x {config.data.size}, "
        f"{config.data.normalization} normalization and threshold {config.evaluation.threshold}"
    ]
    for format in MODELS[config.model.name].formats:
        for argument, value in format.assumed.items():
            if argument != "gate_threshold" or not keep_gate:
                config.model[config.model.name][argument] = value
                notes.append(f"the file does not hold its {argument.replace('_', ' ')}: taking its authors' {value}")
    return notes


def _published_settings(found: Identity | None, state: State, model_name: str | None) -> dict:
    if model_name is not None and (found is None or found.format is None):
        # a state dict without its config records no arguments: take the defaults, and strict loading checks them
        return {"model": {"name": model_name}}
    name, arguments = published_network(found, state)
    if model_name is not None and model_name != name:
        raise ValueError(f"the file holds the weights of {name}, not of {model_name}")
    shared = {key: arguments.pop(key) for key in ("num_classes", "in_channels") if key in arguments}
    loss = "bce_dice" if shared.get("num_classes", 1) == 1 else "ce_dice"
    return {"model": {"name": name, **shared, name: arguments}, "loss": {"name": loss}}


def _set_gate_threshold(config: CfgNode, gate_threshold: float) -> None:
    node = config.model.mhs_vm
    if config.model.name != "mhs_vm" or node.gate == "none":
        raise ValueError(f"{config.model.name} has no gate: leave `gate_threshold` out")
    if node.gate_learnable:
        raise ValueError("the gate's thresholds of this checkpoint are learned: leave `gate_threshold` out")
    node.gate_threshold = gate_threshold


def _check_heads(model: nn.Module, heads: int) -> None:
    if not isinstance(model, MHSVM):
        raise ValueError(f"the checkpoint's network, {type(model).__name__}, has no scan heads: leave `heads` out")
    found = len(model.patterns)
    if found != heads:
        raise ValueError(
            f"the checkpoint has {found} heads, not {heads}: they scan along {', '.join(model.patterns)}. "
            f"Give `heads` {found}, or another checkpoint"
        )
