"""Options that several commands have.

An option is stored under the name of the argument that takes its value (`dest`). Errors of the library quote that name
in backticks, and `with_options` puts the option in its place.
"""

import argparse
import math
import re
import sys
from collections.abc import Sequence

from mhsvm.cli.parser import CommandParser


def add_model_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for running a checkpoint's network."""
    parser.add_argument("--device", default="auto", help="auto (the GPU if there is one), cpu, cuda, cuda:1, …")
    parser.add_argument("--batch-size", type=positive, metavar="N", help="images at a time; default: the checkpoint's")
    parser.add_argument("--backend", metavar="NAME", help="of the scans; default: MHSVM_BACKEND's, or the checkpoint's")
    parser.add_argument(
        "--gate-threshold", type=number, metavar="T", help="of MHS-VM's gate; default: the checkpoint's"
    )
    add_plugins_option(parser, "named by the checkpoint, which imports none by itself, or for metrics")


def add_plugins_option(parser: argparse.ArgumentParser, purpose: str) -> None:
    """Add the option that names modules to import; the purpose follows "modules of your own to import"."""
    parser.add_argument(
        "--plugins", nargs="+", default=[], metavar="MODULE", help=f"modules of your own to import, {purpose}"
    )


def add_metric_options(parser: argparse.ArgumentParser) -> None:
    """Add the options for metrics of boundaries, and for arguments of metrics."""
    parser.add_argument(
        "--no-boundary",
        dest="boundary",
        action="store_false",
        help="leave metrics of boundaries out (hd95, assd, nsd, boundary_iou), which take longest",
    )
    parser.add_argument(
        "--metric",
        dest="metric_settings",
        nargs="+",
        default=[],
        metavar="SETTING",
        help="such as nsd.tolerance=3 (pixels), nsd.fraction=0.01 and boundary_iou.fraction=0.02 (of the diagonal)",
    )


def parse_with_settings(parser: CommandParser, argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """Parse options, and the settings among them, KEY VALUE or KEY=VALUE, in any order.

    Returns:
        The options, and the settings as alternating keys and values.
    Raises:
        ValueError: There is an unknown option, or a key without a value.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    wrong = parser.find_unknown(words)
    if wrong is not None:
        raise _unknown_option(parser, wrong)
    # argparse takes values such as -1e-3 for options: the settings are the words that it leaves over
    arguments, rest = parser.parse_known_args(words)
    from mhsvm.config import pair_up

    settings = pair_up(rest)
    for word in settings[::2]:
        if word.startswith("-"):
            raise _unknown_option(parser, word)
    return arguments, settings


def _unknown_option(parser: CommandParser, option: str) -> ValueError:
    """The error about an unknown option; it may be the name of a setting."""
    from mhsvm.config import find_keys

    keys = find_keys(option.lstrip("-").partition("=")[0].replace("-", "_"))
    hint = f". Settings take no dashes: {' or '.join(keys[:3])}" if keys else ""
    return ValueError(f"{parser.unknown(option)}{hint}; {parser.format_usage().strip()}")


def with_options(message: str, parser: argparse.ArgumentParser) -> str:
    """Replace the arguments that a message quotes in backticks by the options of a command."""
    names = {action.dest: action.option_strings[0] for action in parser._actions if action.option_strings}
    return re.sub(r"`(\w+)`", lambda match: names.get(match[1], match[1]), message)


def number(text: str) -> float:
    """A finite number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"takes a finite number, not {text!r}")
    return value


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"takes a whole number from 1 on, not {text!r}")
    return int(text)


def size(text: str) -> tuple[int, int]:
    """Height and width from "256" or "192x256"."""
    match = re.fullmatch(r"(\d+)(?:x(\d+))?", text.lower())
    if not match:
        raise argparse.ArgumentTypeError(f"a size is written 256 or 192x256 (height x width); got {text!r}")
    return int(match[1]), int(match[2] or match[1])
