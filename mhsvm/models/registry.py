"""The registry of networks."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import nn

from mhsvm.models.weight_format import KeyMark, WeightFormat
from mhsvm.registry import Registry

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])


@dataclass(frozen=True)
class Network:
    """A registered network; see `register_model` for the attributes."""

    create: Callable[..., nn.Module]
    mark: KeyMark | None
    formats: tuple[WeightFormat, ...]
    small: Mapping[str, Any]


MODELS: Registry[Network] = Registry("model")


def register_model(
    name: str,
    *,
    mark: KeyMark | None = None,
    formats: Sequence[WeightFormat] = (),
    small: Mapping[str, Any] | None = None,
) -> Callable[[Factory], Factory]:
    """Register a class or factory for `create_model`.

    It takes keywords only, each with a default: `num_classes`, `in_channels`, and `backend` if the network has
    operations with backends. The network returns logits and has an attribute `stride`; height and width of an image
    are multiples of it.

    Deep supervision: in training mode only, it may return a tuple of those logits and further ones of the same shape.
    Its attribute `auxiliary_weights` then has a number for each further one, the weight of its loss.

    Args:
        name: For `create_model` and the config.
        mark: Mark of state dicts under our own keys; it gives better messages for files of another network. Begin its
            pattern with ^: keys with a prefix do not fit it then, and the prefix is removed.
        formats: Formats with other keys that `load_weights` reads, the published ones first.
        small: Arguments of a small network for tests, which runs in milliseconds.
    Raises:
        ValueError: The name is taken.
    """

    def register(factory: Factory) -> Factory:
        MODELS.add(name, Network(factory, mark, tuple(formats), dict(small or {})), made_of=factory)
        return factory

    return register


def list_models() -> tuple[str, ...]:
    """Names of the registered networks."""
    return tuple(sorted(MODELS))
