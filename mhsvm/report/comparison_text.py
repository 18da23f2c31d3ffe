"""A comparison as text: a table of metrics, and the images that decide it."""

import math
from collections.abc import Iterator, Sequence

from mhsvm.evaluation.scores import format_interval, format_metric
from mhsvm.report.comparison import Comparison, Contender, gains_over
from mhsvm.table import format_table

# Metrics of the tables of raters; comparison.json has all.
_OF_RATERS = ("dsc_per_image", "miou_per_image", "nsd_per_image", "hd95_per_image")
# Images that are named per model.
_NAMED = 5


def comparison_table(comparison: Comparison) -> str:
    """The metrics of all models as a table, with a row per metric and model."""
    return _table(comparison.contenders, comparison.metrics)


def rater_tables(comparison: Comparison) -> Iterator[str]:
    """The models against each consensus and rater, as text; nothing for sets with one mask an image."""
    for reference, contenders in comparison.against.items():
        yield f"against {reference}, {len(contenders[0].scores)} images:"
        names = [name for name in _OF_RATERS if all(name in each.described["metrics"] for each in contenders)]
        yield _table(contenders, names)


def _table(contenders: Sequence[Contender], names: Sequence[str]) -> str:
    first, *others = contenders
    header = ["metric", "run", "value", "95% interval", "difference", "95% interval", "p", "effect"]
    if len(others) > 1:
        header.insert(-1, "p, Holm")
    rows = []
    for name in names:
        for run in contenders:
            limits = run.described["intervals"]["limits"][name]
            row = [name if run is first else "", run.name]
            row += [format_metric(run.described["metrics"][name]), format_interval(limits)]
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


def winner_lines(comparison: Comparison) -> Iterator[str]:
    """Wins and losses of each model against the first one, by Dice, with the clearest cases."""
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
