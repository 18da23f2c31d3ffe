"""The parser of a command: its name as it was called, its version, examples, and the nearest name for a wrong one."""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mhsvm.nearest import did_you_mean, nearest
from mhsvm.version import __version__

# Files of a clone that are commands, by the name of the command.
SCRIPTS = {
    "train": "train.py",
    "test": "test.py",
    "routegen": "routegen.py",
    "prepare": "scripts/prepare.py",
}


def program(command: str) -> str:
    """The words that call a command, as this process was called: `mhsvm test` or `python test.py`."""
    called = Path(sys.argv[0] if sys.argv else "")
    script = SCRIPTS.get(command)
    if script is not None and called.name == Path(script).name:
        return f"python {script}"
    if called.name == "__main__.py" and called.parent.name == "mhsvm":
        return f"python -m mhsvm {command}"
    return f"mhsvm {command}"


class CommandParser(argparse.ArgumentParser):
    """The parser of a command.

    Args:
        prog: The words that call it, see `program`.
        description: A sentence or two.
        examples: Arguments of whole commands, for the end of the help.
        usage: Arguments, where argparse's own usage line lacks the settings.
    """

    def __init__(
        self,
        *,
        prog: str,
        description: str | None = None,
        examples: Sequence[str] = (),
        usage: Sequence[str] = (),
        **options: Any,
    ) -> None:
        lines = [f"  {prog} {arguments}".rstrip() for arguments in examples]
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _Formatter)
        super().__init__(
            prog=prog,
            usage="\n       ".join(f"{prog} {arguments}" for arguments in usage) or None,
            description=description,
            epilog="\n".join([f"example{'s' if len(lines) > 1 else ''}:", *lines]) if lines else None,
            **options,
        )
        self.examples = tuple(examples)
        self.add_argument("--version", action="version", version=f"mhsvm {__version__}", help="print the version")

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse all arguments; a wrong option is an error that names the nearest."""
        arguments, rest = self.parse_known_args(args, namespace)
        if rest:
            self.error(self.unknown(rest[0]))
        return arguments

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse the known arguments; a wrong long option is an error, before any other."""
        words = list(sys.argv[1:] if args is None else args)
        # a required option that is misspelled would be called missing
        wrong = None if self._subparsers else self.find_unknown(words)
        if wrong is not None:
            self.error(self.unknown(wrong))
        return super().parse_known_args(words, namespace)

    def find_unknown(self, words: Sequence[str]) -> str | None:
        """The first word that looks like a long option of this command and is none."""
        for word in words:
            if word == "--":
                break
            if re.match(r"--[A-Za-z]", word) and word.partition("=")[0] not in self._option_string_actions:
                return word
        return None

    def unknown(self, word: str) -> str:
        """The message for a word that is no argument of this command."""
        name = word.partition("=")[0]
        if not name.startswith("-"):
            return f"unrecognized arguments: {word}"
        options = [option for option in self._option_string_actions if option.startswith("--")]
        return f"unknown option {name!r}{did_you_mean(name, options)}"

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError as error:
            near = nearest(str(value), map(str, action.choices or ()))
            hint = "" if near is None else f"; did you mean {near!r}?"
            raise argparse.ArgumentError(action, f"{error.message}{hint}") from None

    def error(self, message: str) -> Any:
        """Print a wrong input like every other error of a command, and exit with status 2."""
        self.exit(2, f"error: {message}\n{self.format_usage()}")


class _Formatter(argparse.HelpFormatter):
    """Keeps the lines of examples."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith(("example:", "examples:")):
            return "\n".join(indent + line for line in text.split("\n"))
        return super()._fill_text(text, width, indent)
