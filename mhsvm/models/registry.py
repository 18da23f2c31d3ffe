"""The networks by name."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])

_FACTORIES: dict[str, Callable[..., nn.Module]] = {}


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Make a class or factory known to `create_model`.

    It takes keywords only, `num_classes` and `in_channels` among them, and its network returns logits.

    Raises:
        ValueError: The name is taken.
    """

    def register(factory: Factory) -> Factory:
        if name in _FACTORIES:
            raise ValueError(f"a model named {name!r} is registered already: choose another name")
        _FACTORIES[name] = factory
        return factory

    return register


def list_models() -> tuple[str, ...]:
    """Names that `create_model` knows."""
    return tuple(sorted(_FACTORIES))


def find_model(name: str) -> Callable[..., nn.Module]:
    """The factory of this name.

    Raises:
        ValueError: There is none.
    """
    if name not in _FACTORIES:
        raise ValueError(f"unknown model {name!r}; known models: {', '.join(list_models())}")
    return _FACTORIES[name]
