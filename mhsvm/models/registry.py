"""The networks by name."""

from collections.abc import Callable
from typing import TypeVar

from torch import nn

from mhsvm.registry import Registry

Factory = TypeVar("Factory", bound=Callable[..., nn.Module])

MODELS: Registry[Callable[..., nn.Module]] = Registry("model")


def register_model(name: str) -> Callable[[Factory], Factory]:
    """Make a class or factory known to `create_model`.

    It takes keywords only, `num_classes` and `in_channels` among them, and its network returns logits.

    Raises:
        ValueError: The name is taken.
    """
    return MODELS.register(name)


def list_models() -> tuple[str, ...]:
    """Names that `create_model` knows."""
    return tuple(sorted(MODELS))
