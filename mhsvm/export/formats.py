"""The formats of exported models, by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from mhsvm.export.comparison import Exported
from mhsvm.export.facts import Facts
from mhsvm.registry import Registry
from mhsvm.result_folder import ResultFolder


@dataclass(frozen=True)
class Export:
    """A trained model to be exported.

    Attributes:
        model: The network in evaluation mode, on the CPU.
        facts: The facts to write beside its weights.
        half: Whether to store the weights in 16 bits.
        beside: A second model for the same files, where the format takes one.
        scan: Whether to scan by an operator of its own, where the format offers it.
    """

    model: nn.Module
    facts: Facts
    half: bool = False
    beside: "Export | None" = None
    scan: bool = False


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        purpose: A line for the help.
        write: Writes the model; returns all files. The first is the path that it was given, or a file in this folder.
        unsupported_reason: Why it cannot hold such a model, or None if it can.
        open: Loads files that `write` has written, to run the model of these facts; returns the reason as a text if
            this machine cannot.
        folder: The files of the folder that it writes; None for files beside each other.
        resizes: Whether the files take images of any size, which they resize.
        takes_beside: Whether they can hold a second model.
        takes_scan: Whether it has an operator for scans.
    """

    purpose: str
    write: Callable[[Export, Path], tuple[Path, ...]]
    unsupported_reason: Callable[[Export], str | None]
    open: Callable[[tuple[Path, ...], Facts], Exported | str]
    folder: ResultFolder | None = None
    resizes: bool = False
    takes_beside: bool = False
    takes_scan: bool = False


FORMATS: Registry[Format] = Registry("export format")
