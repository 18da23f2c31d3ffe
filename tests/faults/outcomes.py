"""Outcomes of injected faults, counted and shown as a table."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

from mhsvm.table import format_table

REFUSED = "refused"
UNCHANGED = "unchanged"
SILENT = "SILENT"
TRACEBACK = "TRACEBACK"
# outcomes that are faults of the program
BAD = (SILENT, TRACEBACK)

Counts = dict[str, Counter]


def outcome_of(read: Callable[[], object], *, expected: object, path: Path) -> str:
    """Read a damaged file and compare its content.

    An error of the user must be ValueError or OSError, as the command runner shows them, and name the file.
    """
    try:
        found = read()
    except (ValueError, OSError) as error:
        return REFUSED if str(path) in str(error) else TRACEBACK
    except (RuntimeError, LookupError, TypeError, AttributeError, MemoryError, EOFError, AssertionError):
        return TRACEBACK
    return UNCHANGED if found == expected else SILENT


def bad_outcomes(counts: Counter) -> int:
    """Number of outcomes that are faults of the program."""
    return sum(counts[outcome] for outcome in BAD)


def format_counts(counts: Counts) -> str:
    """A table with a row for each kind, and a column for each outcome."""
    outcomes = sorted(
        {outcome for of_kind in counts.values() for outcome in of_kind}, key=lambda name: (name in BAD, name)
    )
    rows = [(kind, *(str(of_kind[outcome]) for outcome in outcomes)) for kind, of_kind in counts.items()]
    return format_table(("", *outcomes), rows)
