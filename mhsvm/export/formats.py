"""The formats of exported models, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mhsvm.export.comparison import Exported
from mhsvm.export.facts import Facts
from mhsvm.registry import Registry


@dataclass(frozen=True)
class Export:
    """A trained model to be exported.

    Attributes:
        model: The network in evaluation mode, on the CPU.
        facts: The facts to write beside its weights.
        half: Whether to store the weights in 16 bits.
    """

    model: nn.Module
    facts: Facts
    half: bool = False


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        purpose: A line for the help.
        write: Writes the model; returns all files, the first is the path that it was given.
        unsupported_reason: Why it cannot hold such a model, or None if it can.
        open: Loads files that `write` has written, to run them; returns the reason as a text if this machine cannot.
    """

    purpose: str
    write: Callable[[Export, Path], tuple[Path, ...]]
    unsupported_reason: Callable[[Export], str | None]
    open: Callable[[tuple[Path, ...], Facts], Exported | str]


FORMATS: Registry[Format] = Registry("export format")
