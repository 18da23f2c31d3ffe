"""Plots of scan routes: the order in which a pattern visits the cells of a map."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from mhsvm.routes import route_table

# Cividis is uniform for readers of every color vision, and in grayscale.
_COLORMAP = "cividis"
# With more cells per side, cells and arrows would overlap.
_MOST_DETAILED = 24
_START, _END = "#0072b2", "#d55e00"


def draw_patterns(patterns: Sequence[str], h: int, w: int) -> Figure:
    """Plot the two base routes of each pattern on an h x w map; a scan head visits both, and both backwards.

    Args:
        patterns: Names from `mhsvm.routes.list_patterns()`.
        h, w: Size of the map in cells.
    Raises:
        ValueError: No pattern is given, a pattern is unknown, or the map has no cells.
    """
    if not patterns:
        raise ValueError("at least one scan pattern is drawn; received none")
    routes = [route_table(pattern, h, w)[0].numpy() for pattern in patterns]
    # the routes of one pattern are in one row, those of several in one column each
    grid = (1, 2) if len(patterns) == 1 else (2, len(patterns))
    side = (3.6 if len(patterns) == 1 else 2.4) / max(h, w)
    width, height = max(side * w, 1.2), max(side * h, 1.2)
    figure = Figure(figsize=(grid[1] * (width + 0.1) + 1.4, grid[0] * (height + 0.3) + 0.4), layout="constrained")
    axes = figure.subplots(*grid, squeeze=False)
    for pattern, bases, pair in zip(patterns, routes, axes.reshape(2, -1).T, strict=True):
        for number, (route, ax) in enumerate(zip(bases, pair, strict=True)):
            line = _draw_route(ax, route, h, w)
            ax.set_title(f"{pattern}, base {number}", fontsize=10)
    bar = figure.colorbar(line, ax=axes, aspect=30, label="position on the route")
    bar.set_ticks([0, h * w - 1] if h * w > 1 else [0])
    figure.supxlabel("circle: start; square: end; a head also visits each route backwards", fontsize=8)
    return figure


def _draw_route(ax: Axes, route: np.ndarray, h: int, w: int) -> LineCollection:
    row, column = np.divmod(route, w)
    points = np.stack([column, row], axis=1).astype(float)
    steps = np.stack([points[:-1], points[1:]], axis=1)
    thickness = np.clip(40 / max(h, w), 0.6, 3)
    line = LineCollection(list(steps), cmap=_COLORMAP, linewidths=thickness, capstyle="round")
    line.set_array(np.arange(len(steps)))
    line.set_clim(0, max(len(route) - 1, 1))
    ax.add_collection(line)
    if max(h, w) <= _MOST_DETAILED:
        _draw_cells(ax, h, w)
        _draw_arrows(ax, steps)
    size = np.clip(500 / max(h, w), 12, 60)
    ax.scatter(points[0, 0], points[0, 1], s=size, color=_START, zorder=3)
    ax.scatter(points[-1, 0], points[-1, 1], s=size, color=_END, marker="s", zorder=3)
    ax.set(xlim=(-0.6, w - 0.4), ylim=(h - 0.4, -0.6), aspect="equal", xticks=[], yticks=[])
    ax.spines[:].set_color("0.75")
    return line


def _draw_cells(ax: Axes, h: int, w: int) -> None:
    ax.vlines(np.arange(1, w) - 0.5, -0.5, h - 0.5, color="0.9", linewidth=0.5, zorder=0)
    ax.hlines(np.arange(1, h) - 0.5, -0.5, w - 0.5, color="0.9", linewidth=0.5, zorder=0)


def _draw_arrows(ax: Axes, steps: np.ndarray) -> None:
    """Arrows on every third step show the direction."""
    shown = steps[1::3]
    if len(shown):
        middle, direction = shown.mean(axis=1), shown[:, 1] - shown[:, 0]
        direction = direction / np.linalg.norm(direction, axis=1, keepdims=True)
        ax.quiver(
            *middle.T,
            *direction.T,
            angles="xy",
            pivot="mid",
            scale=30,
            width=0.012,
            headwidth=3.5,
            headlength=4,
            headaxislength=3.5,
            color="0.25",
            minlength=0,
            zorder=2,
        )
