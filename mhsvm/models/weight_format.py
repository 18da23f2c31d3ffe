"""Files that hold a network's weights under names of their authors: how one is recognized and read.

A network's file declares its formats when it registers the network, see `mhsvm.models.registry.register_model`.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Size, Tensor, nn

# Pattern of our key -> theirs, applied one after the other.
Renames = Sequence[tuple[str, str]]
State = Mapping[str, Tensor]


@dataclass(frozen=True)
class KeyMark:
    """Keys by which state dicts of one network in one format differ from all others.

    Attributes:
        present: Pattern that some key contains.
        absent: Pattern that no key contains; None if there is no such condition.
    """

    present: str
    absent: str | None = None

    def fits(self, keys: Iterable[str]) -> bool:
        """Whether a state dict with these keys bears the mark."""
        keys = list(keys)

        def contained(pattern: str) -> bool:
            return any(re.search(pattern, key) for key in keys)

        return contained(self.present) and not (self.absent and contained(self.absent))


@dataclass(frozen=True)
class TensorSource:
    """Where one tensor of ours comes from.

    Attributes:
        keys: Keys in the file: one, or one a head.
        shape: Shape of each of those tensors.
        own_shape: Shape of our tensor.
        routes: For a scan's parameters, the file's index of each of our routes.
    """

    keys: tuple[str, ...]
    shape: Size
    own_shape: Size
    routes: Sequence[int] | None = None

    def take_from(self, state: State) -> Tensor:
        """Our tensor, made of those of the file."""
        if self.routes is None:
            return state[self.keys[0]]
        return torch.stack([state[key].reshape(self.own_shape[1:])[list(self.routes)] for key in self.keys])


class Shapes(dict[str, Size]):
    """Shapes of a state dict; looking up a missing one is a ValueError for the user."""

    def __init__(self, name: str, state: State) -> None:
        super().__init__((key, value.shape) for key, value in state.items())
        self.name = name

    def __missing__(self, key: str) -> Size:
        raise ValueError(f"the file holds weights of {self.name}, but lacks {key}: it is not complete")


def _unchanged(model: nn.Module, state: State) -> State:
    return state


@dataclass(frozen=True, kw_only=True)
class WeightFormat:
    """One kind of file.

    Attributes:
        owner: Whose names the keys are, such as "its authors", for messages.
        mark: Recognizes the file.
        sources: Model -> the source of each entry of its state dict; see `renamed`.
        arguments: Shapes -> the keywords with which `create_model` builds the file's network; None if a file does not
            show them.
        assumed: Keywords that no such file shows, with their authors' values.
        prefix: Stripped from all keys, if all have it.
        prepare: (model, state) -> state, before its keys are matched; raises ValueError if the model cannot take it.
        partial: The file fills a part of the network, and may hold more than that.
        hint: Sentence for the user whose file does not fit.
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
