"""Recognize the network of a state dict, and its arguments, from keys and shapes alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mhsvm.models.checkpoint_file import weights_in
from mhsvm.models.registry import MODELS
from mhsvm.models.weight_format import Shapes, State, WeightFormat


@dataclass(frozen=True)
class Identity:
    """A recognized state dict.

    Attributes:
        name: Name of the network.
        format: Format of the file; None if its keys are ours.
        state: The state dict, without the format's prefix.
    """

    name: str
    format: WeightFormat | None
    state: State

    @property
    def owner(self) -> str:
        """The owner of the names of the keys, for messages."""
        return "this package" if self.format is None else self.format.owner


def identify(state: State) -> Identity | None:
    """Recognize a state dict by the marks of the registered networks; None if no mark fits.

    Raises:
        ValueError: The marks of several networks or formats fit.
    """
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
