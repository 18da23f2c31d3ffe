"""Plotted routes visit the cells in the order of the pattern."""

import numpy as np
import pytest
from matplotlib.collections import LineCollection

from mhsvm.report.route_plots import draw_patterns
from mhsvm.routes import list_patterns, route_table


def routes_in(figure, w):
    """Map each title to the cells that its line visits, in order."""
    found = {}
    for ax in figure.axes:
        lines = [
            drawn for drawn in ax.collections if isinstance(drawn, LineCollection) and drawn.get_array() is not None
        ]
        if ax.get_title() and lines:
            segments = lines[0].get_segments()
            points = np.array([segments[0][0], *(segment[1] for segment in segments)])
            found[ax.get_title()] = (points[:, 1] * w + points[:, 0]).astype(int).tolist()
    return found


@pytest.mark.parametrize(("h", "w"), [(8, 8), (3, 7), (30, 12)])
def test_every_pattern_is_plotted_in_its_order(h, w):
    drawn = routes_in(draw_patterns(list_patterns(), h, w), w)
    expected = {
        f"{pattern}, base {base}": route_table(pattern, h, w)[0][base].tolist()
        for pattern in list_patterns()
        for base in (0, 1)
    }
    assert drawn == expected


def test_the_routes_of_one_pattern_are_in_one_row():
    first, second = (ax for ax in draw_patterns(["S"], 6, 6).axes if ax.get_title())
    assert first.get_subplotspec().rowspan == second.get_subplotspec().rowspan
    assert first.yaxis_inverted()


@pytest.mark.parametrize(
    ("patterns", "size", "message"),
    [
        (["Q"], (4, 4), "unknown scan pattern 'Q'; known: C, X, S, Z"),
        ([], (4, 4), "at least one scan pattern is drawn; received none"),
        (["C"], (0, 4), "a map for scan routes must have at least 1 x 1 cells, got 0 x 4"),
    ],
)
def test_wrong_patterns_and_sizes_are_refused(patterns, size, message):
    with pytest.raises(ValueError, match=message):
        draw_patterns(patterns, *size)
