"""`mhsvm compare RUN RUN …`: compare models image by image, with intervals and p values."""

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from mhsvm.evaluation.scores import format_figure, format_interval
from mhsvm.report.comparison import Comparison, Contender, compare, gains_over
from mhsvm.report.comparison_folder import write_comparison
from mhsvm.report.measured_run import read_runs
from mhsvm.table import format_table

_NAMED = 5


def main(argv: Sequence[str] | None = None) -> int:
    """Compare tests of runs, or scores of masks, to the first of them on their common images."""
    arguments = _parse(argv)
    tested = read_runs(arguments.runs, test=arguments.test)
    comparison = compare(tested)
    folder = arguments.out or Path("results") / "comparisons" / _folder_name([run.name for run in tested])
    write_comparison(folder, comparison)
    for run in tested:
        print(f"{run.name}: {run.folder}")
    for line in (*comparison.notes, "", _table(comparison), "", *_winners(comparison)):
        print(line)
    print(f"plots, cases and metrics: {folder}")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mhsvm compare", description=main.__doc__, allow_abbrev=False)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="folders of runs, of tests or of scores; two or more"
    )
    parser.add_argument("--test", metavar="NAME", help="which of the runs' tests, such as isic2017-wu-sorted")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="default: results/comparisons/ and the names")
    return parser.parse_args(argv)


def _folder_name(names: Sequence[str]) -> str:
    return "-vs-".join(re.sub(r"[^\w.-]+", "-", name).strip("-") for name in names)


def _table(comparison: Comparison) -> str:
    """A row for each metric and model."""
    first, *others = comparison.contenders
    header = ["metric", "run", "value", "95% interval", "difference", "95% interval", "p", "effect"]
    if len(others) > 1:
        header.insert(-1, "p, Holm")
    rows = []
    for name in comparison.metrics:
        for run in comparison.contenders:
            limits = run.described["intervals"]["limits"][name]
            row = [name if run is first else "", run.name]
            row += [format_figure(run.described["metrics"][name]), format_interval(limits)]
            rows.append([*row, *_difference_cells(run, name, adjusted=len(others) > 1)])
    return format_table(header, [row + [""] * (len(header) - len(row)) for row in rows])


def _difference_cells(run: Contender, name: str, *, adjusted: bool) -> list[str]:
    if name not in run.differences:
        return []
    difference = run.differences[name]
    if math.isnan(difference.value):
        return ["-"]
    low, high = difference.interval
    p_values = [difference.p_value, *([run.p_values[name]] if adjusted else [])]
    effect = "" if difference.effect_size is None else f"{difference.effect_size:+.2f}"
    return [f"{difference.value:+.4f}", f"{low:+.4f} to {high:+.4f}", *(f"{p:.4f}" for p in p_values), effect]


def _winners(comparison: Comparison) -> Iterator[str]:
    first, *others = comparison.contenders
    for run in others:
        gains = gains_over(run, first)
        yield (
            f"{run.name} against {first.name}, by Dice: better on {gains.num_wins}, worse on {gains.num_losses} of "
            f"{len(gains.ids)} images"
        )
        for verb, cases in (("wins", gains.largest(_NAMED)), ("loses", gains.smallest(_NAMED))):
            if cases:
                yield f"  {verb} most on {', '.join(f'{id_} {gain:+.4f}' for id_, gain in cases)}"
