"""Charts as SVG for a page, in its text color and in colors that color-blind readers can distinguish."""

import io
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

# Placeholders, replaced by the page's colors for text and curves, which are others in the dark.
_TEXT_COLOR = "#010203"
_FIRST, _SECOND = "#040506", "#070809"
_OF_PAGE = {_TEXT_COLOR: "currentColor", _FIRST: "var(--bar)", _SECOND: "var(--second)"}
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 9,
    **dict.fromkeys(
        ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color", "grid.color"), _TEXT_COLOR
    ),
    "grid.alpha": 0.15,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_SIZE = (4.4, 2.9)
_SOLID, _DASHED = "-", (0, (4, 2))


def learning_curves(history: Sequence[dict]) -> list[str]:
    """Plot losses and validation metrics by epoch; no charts if no epoch is finished."""
    if not history:
        return []
    return [
        _curves(history, {"train_loss": "training", "val_loss": "validation"}, "loss"),
        _curves(history, {"val_dsc": "dsc, pooled", "val_miou": "miou, pooled"}, "validation"),
    ]


def dice_histogram(dice: Sequence[float]) -> str:
    """Plot the distribution of the images' dsc."""

    def draw(axes: Axes) -> None:
        axes.hist(dice, bins=25, range=(0, 1), color=_FIRST)
        axes.set_xlim(0, 1)
        axes.set_xlabel("dsc of an image")
        axes.set_ylabel("images")

    return _svg(draw, "Distribution of the images' dsc")


def reliability_curve(bins: Sequence[dict]) -> str:
    """Plot the observed frequency of lesion by its predicted probability; `bins` as in a summary."""
    filled = [each for each in bins if each["num_pixels"]]

    def draw(axes: Axes) -> None:
        axes.axline((0, 0), slope=1, color=_TEXT_COLOR, alpha=0.5, linewidth=0.8)
        points = [[each[name] for each in filled] for name in ("probability", "frequency")]
        axes.plot(*points, "o-", color=_FIRST, markersize=3.5)
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        axes.set_xlabel("predicted probability")
        axes.set_ylabel("observed frequency")

    return _svg(draw, "Reliability of the probabilities")


def threshold_curves(thresholds: Sequence[dict], chosen: float) -> str:
    """Plot pooled metrics at other thresholds; `thresholds` as in a summary."""
    at = [each["threshold"] for each in thresholds]

    def draw(axes: Axes) -> None:
        axes.axvline(chosen, color=_TEXT_COLOR, alpha=0.5, linewidth=0.8)
        for name, label, color, line in (
            ("dsc", "dsc, pooled", _FIRST, _SOLID),
            ("miou", "miou, pooled", _SECOND, _DASHED),
        ):
            axes.plot(at, [each[name] for each in thresholds], color=color, linestyle=line, label=label)
        axes.set_xlim(0, 1)
        axes.set_xlabel("threshold (that of the test is marked)")
        axes.set_ylabel("metric")
        axes.legend()

    return _svg(draw, "Metrics at other thresholds")


def _curves(history: Sequence[dict], names: dict[str, str], label: str) -> str:
    epochs = [line["epoch"] for line in history]

    def draw(axes: Axes) -> None:
        styles = ((_FIRST, _SOLID), (_SECOND, _DASHED))
        for (name, legend), (color, line) in zip(names.items(), styles, strict=True):
            # a single epoch makes no line
            marker = "o" if len(epochs) == 1 else None
            values = [math.nan if epoch[name] is None else epoch[name] for epoch in history]
            axes.plot(epochs, values, color=color, linestyle=line, marker=marker, label=legend)
        locator = axes.xaxis.get_major_locator()
        assert isinstance(locator, MaxNLocator)
        locator.set_params(integer=True)
        axes.set_xlabel("epoch")
        axes.set_ylabel(label)
        axes.legend()

    return _svg(draw, f"Learning curves: {label}")


def _svg(draw: Callable[[Axes], None], title: str) -> str:
    # any names: matplotlib's stubs list those of one version
    style: Any = {**_STYLE, "svg.hashsalt": title}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=_SIZE, layout="constrained")
        draw(figure.subplots())
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    # the drawing alone, scaled by the page, without ids that another drawing has too
    text = re.sub(r'<g id="[^"]*"', "<g", text[text.index("<svg") :])
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", text, count=1)
    text = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1)
    for placeholder, color in _OF_PAGE.items():
        text = text.replace(placeholder, color)
    return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)
