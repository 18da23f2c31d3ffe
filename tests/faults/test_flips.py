"""A few flips of each kind; `python -m tests.faults flips --count 200` makes many."""

from collections import Counter

from tests.faults import flips
from tests.faults.__main__ import PROGRAMS, main
from tests.faults.outcomes import bad_outcomes, format_counts, outcome_of


def test_no_flipped_bit_is_read_in_silence(tmp_path):
    counts = flips.run(count=25, seed=0, folder=tmp_path)
    assert counts.keys() == flips.KINDS.keys()
    assert all(of_kind.total() == 25 and not bad_outcomes(of_kind) for of_kind in counts.values()), counts
    # every byte of our own files is covered
    assert all(counts[name]["refused"] >= 24 for name in flips.KINDS if name != "foreign.pth"), counts


def raise_error(error):
    raise error


def test_outcomes(tmp_path):
    path = tmp_path / "a.h5"
    outcomes = [
        outcome_of(read, expected=1, path=path)
        for read in (
            lambda: 1,
            lambda: 2,
            lambda: raise_error(ValueError(f"{path} is damaged")),
            lambda: raise_error(ValueError("damaged")),
            lambda: raise_error(KeyError("damaged")),
        )
    ]
    assert outcomes == ["unchanged", "SILENT", "refused", "TRACEBACK", "TRACEBACK"]
    counts = Counter(outcomes)
    assert bad_outcomes(counts) == 3
    assert format_counts({"a.h5": counts}).splitlines()[1].split() == ["a.h5", "1", "1", "1", "2"]


def test_the_command_lists_the_programs(capsys):
    assert main([]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(PROGRAMS)
