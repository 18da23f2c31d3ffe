"""Formats of weight files with other keys than ours: how one is recognized and read.

A network's file declares its formats when it registers the network, see `mhsvm.models.registry.register_model`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, Tensor, nn

# (pattern of our key, replacement by theirs), applied one after the other.
Renames = Sequence[tuple[str, str]]
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class KeyMark:
    """Patterns of keys that only state dicts of one network in one format fit.

    Attributes:
        present: Pattern that some key contains.
        absent: Pattern that no key contains; None if there is no such condition.
    """

    present: str
    absent: str | None = None

    def fits(self, keys: Iterable[str]) -> bool:
        """Whether the mark fits a state dict with these keys."""
        keys = list(keys)

        def contained(pattern: str) -> bool:
            return any(re.search(pattern, key) for key in keys)

        return contained(self.present) and not (self.absent and contained(self.absent))


@dataclass(frozen=True)
class TensorSource:
    """Source in a file of one of our tensors.

    Attributes:
        keys: Keys in the file: one, or one for each head.
        shape: Shape of each of those tensors.
        own_shape: Shape of our tensor.
        routes: Index in the file of each of our routes, for parameters of a scan.
    """

    keys: tuple[str, ...]
    shape: Size
    own_shape: Size
    routes: Sequence[int] | None = None

    def take_from(self, state: State) -> Tensor:
        """Our tensor, made from those of the file."""
        if self.routes is None:
            return state[self.keys[0]]
        return torch.stack([state[key].reshape(self.own_shape[1:])[list(self.routes)] for key in self.keys])


class Shapes(dict[str, Size]):
    """Shapes of a state dict; looking up a missing key raises ValueError with a message for users."""

    def __init__(self, name: str, state: State) -> None:
        super().__init__((key, value.shape) for key, value in state.items())
        self.name = name

    def __missing__(self, key: str) -> Size:
        raise ValueError(f"the file holds weights of {self.name}, but lacks {key}: it is not complete")


def _unchanged(model: nn.Module, state: State) -> State:
    return state


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """A format of weight files.

    Attributes:
        owner: Owner of the names of the keys, such as "its authors", for messages.
        mark: Mark by which files are recognized.
        sources: Model -> the source of each entry of its state dict; see `renamed`.
        arguments: Shapes -> the keywords with which `create_model` builds the network of a file; None if the shapes do
            not determine them.
        assumed: Keywords that the shapes do not determine, with the values of the authors.
        prefix: Removed from all keys if all have it.
        prepare: (model, state) -> state, before its keys are matched; raises ValueError if the model cannot take it.
        partial: Whether a file fills only a part of the network, and may hold tensors that are not used.
        hint: Sentence for messages about files that do not fit.
    """

    owner: str
    mark: KeyMark
    sources: Callable[[nn.Module], dict[str, TensorSource]]
    arguments: Callable[[Shapes], dict[str, Any]] | None = None
    assumed: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    prepare: Callable[[nn.Module, State], State] = _unchanged
    partial: bool = False
    hint: str = "Build the model with the arguments it was trained with"

    def strip(self, state: State) -> State:
        """The state dict without the prefix."""
        if self.prefix and all(key.startswith(self.prefix) for key in state):
            return {key.removeprefix(self.prefix): value for key, value in state.items()}
        return state


def renamed(renames: Renames) -> Callable[[nn.Module], dict[str, TensorSource]]:
    """Sources of a file whose tensors are ours under other names."""

    def sources(model: nn.Module) -> dict[str, TensorSource]:
        return {
            key: TensorSource((rename(key, renames),), value.shape, value.shape)
            for key, value in model.state_dict().items()
        }

    return sources


def rename(key: str, renames: Renames) -> str:
    """Apply renames to one key."""
    for pattern, replacement in renames:
        key = re.sub(pattern, replacement, key)
    return key
