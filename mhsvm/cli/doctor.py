"""`mhsvm doctor`: the backends of this machine, whether each can run and why not, and whether it computes correctly."""

import argparse
from collections.abc import Sequence

from mhsvm.cli.parser import CommandParser, program


def main(argv: Sequence[str] | None = None) -> int:
    """Print versions, devices and backends, and check each backend against the reference."""
    parser().parse_args(argv)
    from mhsvm.cli.machine_checks import check_machine

    return check_machine()


def parser() -> argparse.ArgumentParser:
    """The options of the command."""
    return CommandParser(
        prog=program("doctor"),
        description=main.__doc__,
        examples=("",),
    )
