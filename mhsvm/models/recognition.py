"""Recognize the network of a state dict, and its arguments, from keys and shapes alone."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from mhsvm.models.checkpoint_file import equal_states, weights_in
from mhsvm.models.registry import MODELS
from mhsvm.models.weight_format import Shapes, State, WeightFormat


@dataclass(frozen=True)
class Identity:
    """A recognized state dict.

    Attributes:
        name: Name of the network.
        format: Format of the file; None if its keys are ours.
        state: The state dict, without a prefix.
        outside: Keys of the file outside the network, such as those of a loss that was saved with it.
    """

    name: str
    format: WeightFormat | None
    state: State
    outside: tuple[str, ...] = ()

    @property
    def owner(self) -> str:
        """The owner of the names of the keys, for messages."""
        return "this package" if self.format is None else self.format.owner


def identify(state: State) -> Identity | None:
    """Recognize a state dict by the marks of the registered networks; None if no mark fits.

    The network may be an attribute of another module, at any depth, as in Lightning's checkpoints: its keys then have a
    prefix, which is removed.

    Raises:
        ValueError: The marks of several networks or formats fit, or there are several networks with different weights.
    """
    found = _networks_in(state)
    if not found:
        return None
    network, *others = found.values()
    if not all(equal_states(other.state, network.state) for other in others):
        places = ", ".join(f"{each.name} under {place}" for place, each in found.items())
        raise ValueError(f"the file holds several networks: {places}. Save the weights of one of them alone")
    outside = tuple(key for key in state if not any(key.startswith(place) for place in found))
    if outside and network.format is not None and network.format.partial:
        return None
    return replace(network, outside=outside)


def without_shared_prefixes(state: State) -> Iterator[State]:
    """The state dict, then without the first part of its keys as long as all share it."""
    yield state
    while len(groups := _by_first_part(state)) == 1 and all("." in key for key in state):
        state = next(iter(groups.values()))
        yield state


def _networks_in(state: State, prefix: str = "") -> dict[str, Identity]:
    """The networks in a state dict by the prefix of their keys: itself, or those of its attributes."""
    network = _match(state)
    if network is not None:
        return {prefix: network}
    found: dict[str, Identity] = {}
    for part, attribute in _by_first_part(state).items():
        found |= _networks_in(attribute, prefix + part)
    return found


def _by_first_part(state: State) -> dict[str, dict[str, Tensor]]:
    """State dicts by the first part of keys with several parts, such as "model."."""
    groups: dict[str, dict[str, Tensor]] = {}
    for key, value in state.items():
        part, dot, rest = key.partition(".")
        if dot:
            groups.setdefault(part + dot, {})[rest] = value
    return groups


def _match(state: State) -> Identity | None:
    """The network whose mark a state dict fits."""
    found = []
    for name, network in MODELS.items():
        if network.mark is not None and network.mark.fits(state):
            found.append(Identity(name, None, state))
        for format in network.formats:
            stripped = format.strip(state)
            if format.mark.fits(stripped):
                found.append(Identity(name, format, stripped))
    if len(found) > 1:
        kinds = ", ".join(f"{each.name} under the names of {each.owner}" for each in found)
        raise ValueError(f"the keys of the file fit the marks of {kinds}. Make the marks exclude each other")
    return found[0] if found else None


def recognize(content: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Recognize the network of a published file.

    Args:
        content: The result of `read_checkpoint`, or the state dict alone.
    Returns:
        The name and keywords with which `create_model` builds it. Arguments that the tensors do not determine (the gate
        of MHS-VM and its threshold, the drop path) keep their defaults.
    Raises:
        ValueError: The keys belong to no registered published network, or some are missing.
    """
    state = weights_in(content)
    return published_network(identify(state), state)


def published_network(found: Identity | None, state: State) -> tuple[str, dict[str, Any]]:
    """As `recognize`, for a state dict that `identify` has recognized."""
    if found is None or found.format is None or found.format.arguments is None:
        kind = "names of no network of this package" if found is None else f"the names of {found.owner}"
        known = ", ".join(name for name, network in MODELS.items() if any(each.arguments for each in network.formats))
        raise ValueError(
            f"only published files of {known} are recognized by their keys; "
            f"these are {kind}, beginning with {', '.join(list(state)[:3])}. Name the model"
        )
    return found.name, found.format.arguments(Shapes(found.name, found.state))
