"""Create networks by name, with initial or trained weights."""

import inspect
from typing import Any

from torch import nn

from mhsvm.models.loading import load_weights
from mhsvm.models.pretrained import read_pretrained
from mhsvm.models.registry import MODELS
from mhsvm.nearest import did_you_mean


def create_model(
    name: str, *, num_classes: int = 1, in_channels: int = 3, pretrained: str | None = None, **kwargs: Any
) -> nn.Module:
    """Build a network with initial weights, or with trained ones that come with the package.

    Args:
        name: A name from `list_models()`.
        num_classes: Channels of the output; 1 for a binary mask.
        in_channels: Channels of the image.
        pretrained: A name from `list_pretrained(name)`; None initializes the weights.
        kwargs: Arguments of that model, see its class. With `pretrained`, the defaults are those of its training.
    Returns:
        A module (b, in_channels, H, W) -> logits (b, num_classes, H, W).
    Raises:
        ValueError: The model, a keyword or the weights are unknown, or an argument does not fit the model or weights.
    """
    factory = MODELS[name].create
    for argument, value in (("num_classes", num_classes), ("in_channels", in_channels)):
        if value < 1:
            raise ValueError(f"{argument} is at least 1; received {value}")
    if pretrained is not None:
        content, arguments = read_pretrained(pretrained, model=name)
        model = create_model(name, num_classes=num_classes, in_channels=in_channels, **{**arguments, **kwargs})
        load_weights(model, content)
        return model
    known = [key for key in inspect.signature(factory).parameters if key not in ("num_classes", "in_channels")]
    for key in kwargs:
        if key not in known:
            hint = did_you_mean(key, known) or "."
            raise ValueError(f"model {name!r} has no argument {key!r}{hint} It takes: {', '.join(known)}")
    return factory(num_classes=num_classes, in_channels=in_channels, **kwargs)
