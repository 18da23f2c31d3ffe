"""`mhsvm COMMAND …`: one file a command, imported only when it is asked for."""

import importlib
import sys
from collections.abc import Callable, Sequence

Main = Callable[[Sequence[str] | None], int]

COMMANDS = {
    "train": "train a network from a config, or resume a run",
    "test": "measure a checkpoint on a data set",
    "predict": "segment images of your own",
    "score": "score masks of any tool against a truth",
    "compare": "compare tests or scores image by image",
    "report": "make a page of a test: figures, groups, curves and every case",
    "sweep": "train and test a config with several seeds, folds and settings",
    "leaks": "find images that a set holds twice, or that two sets share",
    "prepare": "turn archives or folders of a data set into one prepared file",
    "synthesize": "draw a small data set that looks like dermoscopy",
    "profile": "count what a network costs, and time it",
    "doctor": "tell what runs on this machine, what does not and why",
    "draw-routes": "draw the routes of the scan patterns",
    "routegen": "write the scan routes of an image size in the published format",
}


def run(command: Main, argv: Sequence[str] | None = None) -> int:
    """Run a command: what a user did wrong is one message on stderr and status 2, not a traceback."""
    try:
        return command(argv)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        # torch's class by its name: this file loads no torch
        if type(error).__name__ != "OutOfMemoryError":
            raise
        print("error: memory does not suffice: try a smaller --batch-size, or --device cpu", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `mhsvm`."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or arguments[0] in ("-h", "--help"):
        width = max(map(len, COMMANDS))
        print("usage: mhsvm COMMAND …   (mhsvm COMMAND --help)\n")
        print("\n".join(f"  {name:{width}}  {purpose}" for name, purpose in COMMANDS.items()))
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        print(f"error: unknown command {name!r}; known: {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    command = importlib.import_module(f"mhsvm.cli.{name.replace('-', '_')}")
    return run(command.main, arguments[1:])
