"""The networks by name."""

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
    """Make a class or factory known to `create_model`.

    It takes keywords only, each with a default; `num_classes` and `in_channels` are among them, and `backend` if the
    network has operations that need it. The network has an attribute `stride`, of which height and width of an image
    are multiples, and returns logits.

    Args:
        name: For `create_model` and the config.
        mark: Recognizes state dicts under our own keys, which gives better messages for files of another network.
        formats: Files under other keys that `load_weights` reads, the published ones first.
        small: Arguments of a small network of this kind, which runs in milliseconds: tests use it.
    Raises:
        ValueError: The name is taken.
    """

    def register(factory: Factory) -> Factory:
        MODELS.add(name, Network(factory, mark, tuple(formats), dict(small or {})), made_of=factory)
        return factory

    return register


def list_models() -> tuple[str, ...]:
    """Names that `create_model` knows."""
    return tuple(sorted(MODELS))
