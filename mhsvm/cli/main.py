"""`mhsvm COMMAND …`: one file per command, imported only when it is called.

A command parses, calls and prints: its file imports the library only after parsing, so that `--help` is quick.
"""

import errno
import importlib
import io
import sys
from collections.abc import Callable, Sequence

from mhsvm.cli.options import with_options
from mhsvm.files import NO_ROOM
from mhsvm.nearest import did_you_mean
from mhsvm.table import format_table
from mhsvm.version import __version__

Main = Callable[[Sequence[str] | None], int]

COMMANDS = {
    "train": "train a network from a config, or resume a run",
    "test": "measure a checkpoint on a data set",
    "predict": "segment images of your own",
    "score": "score masks of any tool against their ground truth",
    "compare": "compare tests or scores image by image",
    "report": "make a page of a test: metrics, groups, curves and every case",
    "sweep": "train and test a config with several seeds, folds and settings",
    "leaks": "find images that a set holds twice, or that two sets have in common",
    "download": "get the official archives of a public set",
    "prepare": "turn archives or folders of a data set into one prepared file",
    "export": "write a model as a page, or as C source, that needs no Python",
    "synthesize": "generate a small data set that looks like dermoscopy",
    "profile": "count the cost of a network, and time it",
    "doctor": "check the backends of this machine, with the reason if one cannot run",
    "draw-routes": "draw the routes of the scan patterns",
    "routegen": "write the scan routes of an image size in the published format",
}

EXAMPLES = (
    "mhsvm predict --weights isic2017-wu-sorted --source photos --out predicted",
    "mhsvm prepare isic2017 --source ISIC-2017_*.zip --out data/isic2017.h5",
    "mhsvm train --config configs/ultralight_isic2017.yaml",
)

_OF_DISKS = (*NO_ROOM, errno.EIO)


def run(command: Main, argv: Sequence[str] | None = None) -> int:
    """Run a command: an error of the user is one message on stderr and status 2, not a traceback."""
    _print_all_characters()
    try:
        return command(argv)
    except (ValueError, OSError) as error:
        print(f"error: {_with_options(str(error), command)}", file=sys.stderr)
        # of the user's errors, only a disk may be in order again without a change of the command; a sweep tries again
        return 1 if getattr(error, "errno", None) in _OF_DISKS else 2
    except RuntimeError as error:
        # compared by name, because this file must not import torch
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print("error: memory does not suffice: try a smaller --batch-size, or --device cpu", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def _print_all_characters() -> None:
    """Let stdout escape characters that its encoding lacks, as stderr does: no work may fail for printing a name.

    A pipe on Windows and PYTHONIOENCODING=ascii have such encodings.
    """
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")


def _with_options(message: str, command: Main) -> str:
    """Name a command's options instead of the arguments of the library that a message quotes."""
    parser = getattr(sys.modules[command.__module__], "parser", None)
    return message if parser is None else with_options(message, parser())


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `mhsvm`."""
    _print_all_characters()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: mhsvm COMMAND …   (mhsvm COMMAND --help, mhsvm --version)\n")
        print(format_table((), [("", name, purpose) for name, purpose in COMMANDS.items()]))
        print("\n".join(["\nexamples:", *(f"  {line}" for line in EXAMPLES)]))
        return 0
    name = arguments[0]
    if name == "--version":
        print(f"mhsvm {__version__}")
        return 0
    if name not in COMMANDS:
        known = ", ".join(COMMANDS)
        print(f"error: unknown command {name!r}; known: {known}{did_you_mean(name, COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"mhsvm.cli.{name.replace('-', '_')}")
    return run(command.main, arguments[1:])
