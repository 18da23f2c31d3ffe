"""Tests and scores read from their folders: summary and cases."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch

from mhsvm.evaluation import rater_summary
from mhsvm.evaluation.raters import PREDICTION
from mhsvm.evaluation.scores import COUNTS
from mhsvm.evaluation.summary import read_summary
from mhsvm.metrics import PER_IMAGE, Scores
from mhsvm.text_file import Table, read_table


@dataclass(frozen=True)
class MeasuredRun:
    """A test of a run, or a score of masks.

    Attributes:
        name: Name of the run, made unique among the runs that were read together.
        folder: Folder of the test.
        summary: Content of summary.json.
        scores: Scores of its images, from cases.csv.
        against: Scores against each consensus and rater, from raters.csv, for sets with several raters.
    """

    name: str
    folder: Path
    summary: dict
    scores: Scores
    against: Mapping[str, Scores] = field(default_factory=dict)


def read_runs(paths: Sequence[Path], *, test: str | None = None) -> list[MeasuredRun]:
    """Read tests and scores.

    Args:
        paths: Folders of tests, of scores, or of runs with tests. From a run with several tests, the one whose name all
            runs share is taken.
        test: Name of the tests to take from runs, such as "isic2017-wu-sorted".
    Raises:
        FileNotFoundError: A folder does not exist, or has no test.
        ValueError: The tests are ambiguous, one is given twice, or a file is damaged.
    """
    folders = _find(paths, test)
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError(f"a test is given twice among {', '.join(map(str, folders))}: name different runs")
    return [
        MeasuredRun(
            name,
            folder,
            read_summary(folder / "summary.json"),
            read_cases(folder / "cases.csv"),
            read_raters(folder / rater_summary.FILE),
        )
        for name, folder in zip(_names(folders), folders, strict=True)
    ]


def read_cases(path: Path) -> Scores:
    """Read counts, and distances if they were measured, from a table of `write_cases`.

    Raises:
        ValueError: Columns or rows are missing or malformed.
    """
    table = _read_table(path, "id")
    return _scores(path, table.columns, zip(table.lines, table.rows, strict=True))


def read_raters(path: Path) -> dict[str, Scores]:
    """Read the scores of the prediction against each consensus and rater, from a table of `write_raters`.

    Returns:
        Scores by reference; empty if there is no such table.
    Raises:
        ValueError: Columns or rows are missing or malformed.
    """
    if not path.is_file():
        return {}
    table = _read_table(path, "id", "mask", "reference")
    found: dict[str, list[tuple[int, Mapping[str, str]]]] = {}
    for line, row in zip(table.lines, table.rows, strict=True):
        if row["mask"] == PREDICTION:
            found.setdefault(row["reference"], []).append((line, row))
    return {reference: _scores(path, table.columns, rows) for reference, rows in found.items()}


def _read_table(path: Path, *columns: str) -> Table:
    table = read_table(path, remedy="test or score again")
    missing = {*columns, *COUNTS} - set(table.columns)
    if missing:
        raise ValueError(f"{path} is not the table of a test: it has no column {', '.join(sorted(missing))}")
    return table


def _scores(path: Path, columns: Sequence[str], rows: Iterable[tuple[int, Mapping[str, str]]]) -> Scores:
    of_counts = {"id", "mask", "reference", "class", "height", "width", *COUNTS, *PER_IMAGE}
    names = tuple(name for name in columns if name not in of_counts)
    of_images: dict[str, list[tuple[list[int], list[float]]]] = {}
    for line, row in rows:
        try:
            counts = [int(row[name]) for name in COUNTS]
            distances = [float(row[name] or math.nan) for name in names]
        except ValueError as error:
            raise ValueError(f"{path}, line {line}: {error}; test or score again") from error
        of_images.setdefault(row["id"], []).append((counts, distances))
    if not of_images or len({len(classes) for classes in of_images.values()}) != 1:
        raise ValueError(f"{path} has no rows, or not as many of each image: test or score again")
    all_counts = torch.tensor([[counts for counts, _ in classes] for classes in of_images.values()])
    values = torch.tensor([[values for _, values in classes] for classes in of_images.values()], dtype=torch.float64)
    return Scores(tuple(of_images), all_counts, values if names else None, names)


def find_tests(path: Path) -> dict[str, Path]:
    """Map the name of each test of a run to its folder; a test or score has one entry, itself.

    Raises:
        FileNotFoundError: There is no test; the message describes the folder and the remedy.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"there is no folder {path}")
    if _is_test(path):
        return {path.resolve().name: path}
    folder = path / "tests"
    tests = {test.name: test for test in sorted(folder.iterdir()) if _is_test(test)} if folder.is_dir() else {}
    if tests:
        return tests
    best = path / "checkpoints" / "best.pt"
    if best.is_file():
        raise FileNotFoundError(f"{path} has not been tested yet: test its checkpoint {best}")
    if (path / "checkpoints").is_dir():
        raise FileNotFoundError(f"{path} is a run that has not finished an epoch: resume its training")
    raise FileNotFoundError(f"{path} is neither a run nor a test nor a score: summary.json and cases.csv are not there")


def _find(paths: Sequence[Path], test: str | None) -> list[Path]:
    """Folder of each test."""
    found = [find_tests(path) for path in paths]
    if test is not None:
        found = [_named(test, tests, path) for tests, path in zip(found, paths, strict=True)]
    several = {path: tests for path, tests in zip(paths, found, strict=True) if len(tests) > 1}
    if several:
        shared = sorted(set.intersection(*map(set, several.values())))
        if len(shared) != 1:
            have = "; ".join(f"{path} has {', '.join(tests)}" for path, tests in several.items())
            raise ValueError(f"several tests could be compared: {have}. Choose one with `test`, or give their folders")
        found = [{shared[0]: tests[shared[0]]} if len(tests) > 1 else tests for tests in found]
    return [folder for tests in found for folder in tests.values()]


def _named(test: str, tests: dict[str, Path], path: Path) -> dict[str, Path]:
    if _is_test(path):
        return tests
    if test not in tests:
        raise FileNotFoundError(f"{path} has no test {test!r}; it has {', '.join(tests)}")
    return {test: tests[test]}


def _is_test(folder: Path) -> bool:
    return (folder / "summary.json").is_file() and (folder / "cases.csv").is_file()


def _names(folders: Sequence[Path]) -> list[str]:
    """Names of the runs if they are unique, otherwise with the tests' names, otherwise the paths."""
    whole = [folder.resolve() for folder in folders]
    runs = [path.parents[1].name if path.parent.name == "tests" else path.name for path in whole]
    tests = [f"{run}/{path.name}" for run, path in zip(runs, whole, strict=True)]
    for names in (runs, tests):
        if len(set(names)) == len(names):
            return names
    return [str(folder) for folder in folders]
