"""Results of a sweep: mean, standard deviation and confidence interval of every metric.

Runs of one combination of settings are repetitions. With folds, the seeds of a fold are averaged first and the folds
are the repetitions, because runs with the same test images are not independent.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from scipy.stats import t as student

from mhsvm.sweep.grid import GridRun
from mhsvm.text_file import write_json, write_table

CONFIDENCE = 0.95
# Metrics of the printed table; the files have all metrics.
SHOWN = ("miou", "dsc", "miou_per_image", "dsc_per_image", "sensitivity", "specificity")


@dataclass(frozen=True)
class Result:
    """A test of a run.

    Attributes:
        run: The run.
        summary: Content of the test's summary.json.
    """

    run: GridRun
    summary: Mapping

    @property
    def set_name(self) -> str:
        return self.summary["protocol"]["set"]["name"]

    @property
    def metrics(self) -> dict[str, float]:
        """Metrics that are plain numbers."""
        return {name: value for name, value in self.summary["metrics"].items() if isinstance(value, (int, float))}


@dataclass(frozen=True)
class Spread:
    """Statistics of one metric over repetitions.

    Attributes:
        num: Number of repetitions.
        mean: Mean.
        deviation: Sample standard deviation; None for a single repetition.
        interval: Confidence interval of the mean by Student's t at `CONFIDENCE`; None for a single repetition.
    """

    num: int
    mean: float
    deviation: float | None
    interval: tuple[float, float] | None


@dataclass(frozen=True)
class Row:
    """All tests of one combination of settings on one set.

    Attributes:
        variant: Name of the combination, "" if no setting varies.
        set_name: Name of the set.
        num_runs: Number of tests.
        unit: Kind of repetition: "seed" or "fold".
        spreads: Statistics by metric.
    """

    variant: str
    set_name: str
    num_runs: int
    unit: str
    spreads: dict[str, Spread]


def spread_of(values: Sequence[float]) -> Spread:
    """Mean, sample standard deviation and t interval of at least one value."""
    mean = statistics.fmean(values)
    if len(values) == 1:
        return Spread(1, mean, None, None)
    deviation = statistics.stdev(values)
    reach = float(student.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Spread(len(values), mean, deviation, (mean - reach, mean + reach))


def make_rows(results: Sequence[Result]) -> list[Row]:
    """Group tests by combination of settings and set, in their order."""
    groups: dict[tuple[str, str], list[Result]] = {}
    for result in results:
        groups.setdefault((result.run.variant, result.set_name), []).append(result)
    return [
        Row(variant, set_name, len(group), "seed" if group[0].run.fold is None else "fold", _spreads(group))
        for (variant, set_name), group in groups.items()
    ]


def write_spreads(path: Path, rows: Sequence[Row]) -> None:
    """Write a line for each combination, set and metric."""
    lines = []
    for row in rows:
        for name, spread in row.spreads.items():
            lower, upper = spread.interval or (None, None)
            numbers = [spread.mean, spread.deviation, lower, upper]
            lines.append([row.variant, row.set_name, row.num_runs, spread.num, row.unit, name, *numbers])
    columns = ["settings", "set", "runs", "repetitions", "of", "figure", "mean", "deviation", "lower", "upper"]
    write_table(path, columns, lines)


def write_results(path: Path, rows: Sequence[Row], results: Sequence[Result], given_up: Mapping[str, str]) -> None:
    """Write the rows, the metrics of each run, and the runs that were given up."""
    content = {
        "confidence": CONFIDENCE,
        "rows": [
            {
                "settings": row.variant,
                "set": row.set_name,
                "runs": row.num_runs,
                "repetition": row.unit,
                "figures": {name: vars(spread) for name, spread in row.spreads.items()},
            }
            for row in rows
        ],
        "runs": [
            {
                "name": result.run.name,
                "settings": result.run.variant,
                "seed": result.run.seed,
                "fold": result.run.fold,
                "set": result.set_name,
                "split": result.summary["protocol"]["split"],
                "split_hash": result.summary["protocol"]["split_hash"],
                "figures": result.metrics,
            }
            for result in results
        ],
        "given_up": dict(given_up),
    }
    write_json(path, content, allow_nan=True)


def _spreads(group: Sequence[Result]) -> dict[str, Spread]:
    repetitions: dict[int, list[Result]] = {}
    for result in group:
        unit = result.run.seed if result.run.fold is None else result.run.fold
        repetitions.setdefault(unit, []).append(result)
    # a metric that some tests lack, because another version wrote them, has no mean
    names = [name for name in group[0].metrics if all(name in result.metrics for result in group)]
    return {
        name: spread_of([statistics.fmean(result.metrics[name] for result in unit) for unit in repetitions.values()])
        for name in names
    }
