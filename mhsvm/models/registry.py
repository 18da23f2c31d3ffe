"""The networks by name."""

import difflib
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

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


def create_model(
    name: str, *, num_classes: int = 1, in_channels: int = 3, pretrained: str | None = None, **kwargs: Any
) -> nn.Module:
    """Build a network, with fresh weights or with those that come with the package.

    Args:
        name: A name from `list_models()`.
        num_classes: Channels of the output; 1 for a binary mask.
        in_channels: Channels of the image.
        pretrained: A name from `list_pretrained(name)`; None draws fresh weights.
        kwargs: Arguments of that model, see its class; with `pretrained`, those it was trained with are the defaults.
    Returns:
        A module (b, in_channels, H, W) -> logits (b, num_classes, H, W).
    Raises:
        ValueError: The model, a keyword or the weights are unknown, or an argument does not fit model or weights.
    """
    if name not in _FACTORIES:
        raise ValueError(f"unknown model {name!r}; known models: {', '.join(list_models())}")
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{argument} is at least 1; received {value}")
    if pretrained is not None:
        # what loads weights knows the networks, which register themselves here
        from mhsvm.models.pretrained import read_pretrained
        from mhsvm.models.published import load_weights

        content, arguments = read_pretrained(pretrained, model=name)
        model = create_model(name, num_classes=num_classes, in_channels=in_channels, **{**arguments, **kwargs})
        load_weights(model, content)
        return model
    factory = _FACTORIES[name]
    known = [key for key in inspect.signature(factory).parameters if key not in ("num_classes", "in_channels")]
    for key in kwargs:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise ValueError(f"model {name!r} has no argument {key!r}.{hint} It takes: {', '.join(known)}")
    return factory(num_classes=num_classes, in_channels=in_channels, **kwargs)
