"""Sequence mixers by name: the blocks that the branches of a PVM layer share."""

import inspect
from collections.abc import Callable
from functools import partial

from torch import nn

from mhsvm.layers.mamba import Mamba
from mhsvm.registry import Registry

Mixer = Callable[..., nn.Module]

MIXERS: Registry[Mixer] = Registry("mixer")

MIXERS.add("mamba", Mamba)


def register_mixer(name: str) -> Callable[[Mixer], Mixer]:
    """Register a class or function width -> module on sequences (b, l, width).

    Its other arguments have defaults, which are shown in a config under `mixer.NAME`. Arguments `d_state`, `d_conv`,
    `expand` and `backend` get the values of the network. The module must not change its input. If it has the attribute
    `takes_size = True`, it is called with `size=(h, w)` too: the sequences are maps, row by row.

    Raises:
        ValueError: The name is taken.
    """
    return MIXERS.register(name)


def list_mixers() -> tuple[str, ...]:
    """Names of the registered mixers."""
    return MIXERS.names()


def find_mixer(mixer: str | Mixer, **offered: object) -> Mixer:
    """The constructor of a mixer, with those of the offered arguments that it takes.

    Raises:
        ValueError: The name is unknown.
    """
    constructor = MIXERS[mixer] if isinstance(mixer, str) else mixer
    taken = inspect.signature(constructor).parameters
    return partial(constructor, **{name: value for name, value in offered.items() if name in taken})
