"""Plots of a comparison, in colors and shapes that color-blind readers can distinguish."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from mhsvm.inference.overlay import BLACK, BLUE, BLUISH_GREEN, ORANGE, REDDISH_PURPLE, VERMILLION, as_fractions
from mhsvm.report.comparison import Comparison, Contender, gains_over

# The metrics that papers print, and that of the ISIC challenge.
_SHOWN = {
    "miou": "miou, pooled",
    "dsc": "dsc, pooled",
    "miou_per_image": "miou, per image",
    "dsc_per_image": "dsc, per image",
    "jaccard_thresholded": "jaccard_thresholded",
}
_COLORS = (BLUE, VERMILLION, BLUISH_GREEN, REDDISH_PURPLE, ORANGE, BLACK)
_MARKERS = ("o", "s", "^", "D", "v", "P")
_NAMED = 5


def write_plots(folder: Path, comparison: Comparison) -> None:
    """Write intervals.png, and gains-N.png for each model except the first, with N from 1."""
    first, *others = comparison.contenders
    # names and ids are not formulas
    with matplotlib.rc_context({"text.parse_math": False}):
        _draw_intervals(comparison).savefig(folder / "intervals.png", dpi=144)
        for number, contender in enumerate(others, start=1):
            _draw_gains(contender, first).savefig(folder / f"gains-{number}.png", dpi=144)


def _draw_intervals(comparison: Comparison) -> Figure:
    """Plot each metric of each model with its interval."""
    runs = comparison.contenders
    figure = Figure(figsize=(8, 1.2 + len(_SHOWN) * (0.35 + 0.18 * len(runs))), layout="constrained")
    axes = figure.subplots()
    for place, run in enumerate(runs):
        rows = np.arange(len(_SHOWN)) + (place - (len(runs) - 1) / 2) * 0.8 / len(runs)
        # None, which becomes NaN and is not drawn, where a metric is not defined
        values = np.array([run.described["metrics"][name] for name in _SHOWN], float)
        limits = np.array([run.described["intervals"]["limits"][name] for name in _SHOWN], float)
        color = as_fractions(_COLORS[place % len(_COLORS)])
        # another marker each time that the colors repeat
        marker = _MARKERS[(place + place // len(_COLORS)) % len(_MARKERS)]
        axes.hlines(rows, *limits.T, color=color)
        axes.plot(values, rows, marker, color=color, label=run.name)
    axes.set_yticks(range(len(_SHOWN)), list(_SHOWN.values()))
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    confidence = runs[0].described["intervals"]["confidence"]
    axes.set_xlabel(f"value and {confidence:.0%} bootstrap interval, {len(comparison.ids)} images")
    figure.legend(loc="outside upper left", ncols=2)
    return figure


def _draw_gains(contender: Contender, first: Contender) -> Figure:
    """Plot the dsc of each image against that of the first model, and the sorted differences."""
    figure = Figure(figsize=(11, 5.2), layout="constrained")
    against, ordered = figure.subplots(1, 2)
    gains = gains_over(contender, first)
    total, won, lost = len(gains.ids), gains.num_wins, gains.num_losses
    dice, other = first.dice[gains.rows].numpy(), contender.dice[gains.rows].numpy()
    parts = (
        (slice(0, won), "^", BLUE),
        (slice(won, total - lost), "o", BLACK),
        (slice(total - lost, total), "v", VERMILLION),
    )
    for part, marker, color in parts:
        against.scatter(
            dice[part], other[part], s=16, marker=marker, color=as_fractions(color), alpha=0.6, linewidths=0
        )
        if part.start != part.stop:
            edges = np.arange(part.start, part.stop + 1)
            ordered.stairs(gains.values[part].numpy(), edges, fill=True, color=as_fractions(color))
    low = min(dice.min(), other.min())
    against.axline((low, low), slope=1, color="gray", linewidth=0.8)
    against.set_xlabel(f"dsc of {first.name}")
    against.set_ylabel(f"dsc of {contender.name}")
    ordered.axhline(0, color="gray", linewidth=0.8)
    ordered.set_xlabel("images, from the largest gain to the largest loss")
    ordered.set_ylabel(f"dsc of {contender.name} minus that of {first.name}")
    # gains decrease from left to right: with symmetric limits these corners are empty
    reach = 1.1 * max(gains.values.abs().max().item(), 0.01)
    ordered.set_ylim(-reach, reach)
    for cases, x, y, sides in (
        (gains.largest(_NAMED), 0.98, 0.98, {"ha": "right", "va": "top"}),
        (gains.smallest(_NAMED)[::-1], 0.02, 0.02, {"ha": "left", "va": "bottom"}),
    ):
        text = "\n".join(f"{gain:+.3f}  {id_}" for id_, gain in cases)
        ordered.text(x, y, text, transform=ordered.transAxes, **sides)
    figure.suptitle(f"{contender.name} is better on {won}, worse on {lost}, equal on {total - won - lost} images")
    return figure
