"""Weights of our checkpoints and of published files, loaded strictly into our networks."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Size, Tensor, nn

from mhsvm.models.checkpoint_file import read_checkpoint, weights_in
from mhsvm.models.recognition import Identity, identify, without_shared_prefixes
from mhsvm.models.registry import MODELS
from mhsvm.models.weight_format import State, WeightFormat


@dataclass(frozen=True)
class LoadReport:
    """Outcome of `load_weights`.

    Attributes:
        filled: Our tensors that now hold weights of the file.
        unfilled: Our tensors that kept their values.
        unused: Tensors of the file, by its own names, that were not used.
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

    Our checkpoints and state dicts, and the published files of the registered networks, must fit exactly. They may be
    saved by another framework (Lightning, nnU-Net, timm, MONAI, torch.compile, DistributedDataParallel): see
    `weights_in` and `identify`. The one exception is a file of VMamba's encoder for VM-UNet: encoder stage i also
    fills the blocks of the decoder stage of its size, as the authors of VM-UNet do, and the report lists the tensors
    that were not filled.

    Args:
        model: From `create_model`.
        source: A checkpoint file, its content, or a state dict.
    Returns:
        The tensors that were filled, those that were not, and those of the file that were not used.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is not a checkpoint, belongs to another network, or does not fit. The message lists all
            keys that are missing, unexpected or of another shape. The model is unchanged.
    """
    state = weights_in(source) if isinstance(source, Mapping) else weights_in(read_checkpoint(source), source)
    return load_state(model, state, identify(state))


def load_state(model: nn.Module, state: State, found: Identity | None) -> LoadReport:
    """As `load_weights`, for a state dict that `identify` has recognized."""
    if found is not None:
        _check_network(model, found)
    unused: tuple[str, ...] = () if found is None else found.outside
    weights: State
    if found is None or found.format is None:
        expected = {key: value.shape for key, value in model.state_dict().items()}
        state = state if found is None else found.state
        # a network without a mark, or with one that fits with a prefix too, is recognized by its keys
        weights = next((each for each in without_shared_prefixes(state) if each.keys() == expected.keys()), state)
        _check_fit(model, expected, weights)
    elif found.format.partial:
        weights, unused = _partial_weights(model, found.state, found.format)
    else:
        weights = _complete_weights(model, found.state, found.format)
    # Checked above; only a partial file leaves some tensors unchanged.
    unfilled = tuple(model.load_state_dict(weights, strict=False).missing_keys)
    return LoadReport(filled=tuple(weights), unfilled=unfilled, unused=unused)


def _check_network(model: nn.Module, found: Identity) -> None:
    classes = {name: network.create for name, network in MODELS.items() if isinstance(network.create, type)}
    # a network that a function made has no class to ask: the fit of its tensors is checked
    expected = classes.get(found.name)
    is_known = isinstance(model, tuple(classes.values()))
    if expected is not None and not isinstance(model, expected) and (is_known or found.format is not None):
        raise ValueError(
            f"the file holds weights of {found.name}, under the names of {found.owner}; the model is a "
            f"{type(model).__name__}. Build it with create_model({found.name!r}, ...)"
        )


def _complete_weights(model: nn.Module, state: State, format: WeightFormat) -> dict[str, Tensor]:
    state = format.prepare(model, state)
    sources = format.sources(model)
    expected = {key: source.shape for source in sources.values() for key in source.keys}
    _check_fit(model, expected, state, hint=format.hint)
    return {key: source.take_from(state) for key, source in sources.items()}


def _partial_weights(model: nn.Module, state: State, format: WeightFormat) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    state = format.prepare(model, state)
    sources = {
        key: source for key, source in format.sources(model).items() if all(their in state for their in source.keys)
    }
    used = {key: source.shape for source in sources.values() for key in source.keys}
    wrong = [_wrong_shape(key, state[key], shape) for key, shape in used.items() if state[key].shape != shape]
    if wrong:
        raise ValueError(
            f"the weights of {format.owner} do not fit this {type(model).__name__}:\n"
            f"  of another shape: {_listed(wrong)}\n{format.hint}"
        )
    weights = {key: source.take_from(state) for key, source in sources.items()}
    return weights, tuple(key for key in state if key not in used)


def _check_fit(
    model: nn.Module,
    expected: Mapping[str, Size],
    state: State,
    *,
    hint: str = "Build the model with the arguments it was trained with",
) -> None:
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
        raise ValueError(f"the weights do not fit this {type(model).__name__}:\n" + "\n".join(lines) + f"\n{hint}")


def _wrong_shape(key: str, value: Tensor, expected: Size) -> str:
    return f"{key} (file {tuple(value.shape)}, model {tuple(expected)})"


def _listed(names: Sequence[str], limit: int = 20) -> str:
    more = f" … and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
