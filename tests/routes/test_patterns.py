import numpy as np
import pytest

from mhsvm.routes import list_patterns, register_pattern, route_table
from mhsvm.routes.patterns import PATTERNS

# Drawn by hand: where each cell of a 3 x 4 map comes on the two base routes.
POSITIONS = {
    "C": (
        [[0, 1, 2, 3], [7, 6, 5, 4], [8, 9, 10, 11]],
        [[0, 5, 6, 11], [1, 4, 7, 10], [2, 3, 8, 9]],
    ),
    "X": (
        [[0, 1, 5, 6], [2, 4, 7, 10], [3, 8, 9, 11]],
        [[6, 5, 1, 0], [10, 7, 4, 2], [11, 9, 8, 3]],
    ),
    "S": (
        [[0, 1, 2, 3], [9, 10, 11, 4], [8, 7, 6, 5]],
        [[8, 7, 6, 5], [9, 10, 11, 4], [0, 1, 2, 3]],
    ),
    "Z": (
        [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]],
        [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]],
    ),
}


def test_published_patterns_are_registered():
    assert list_patterns() == ("C", "X", "S", "Z")


@pytest.mark.parametrize("pattern", POSITIONS)
def test_drawn_routes(pattern):
    _, inverse = route_table(pattern, 3, 4)
    assert inverse.reshape(2, 3, 4).tolist() == list(POSITIONS[pattern])


@pytest.mark.parametrize("pattern", list_patterns())
def test_every_size_is_a_permutation(pattern):
    for h in range(1, 9):
        for w in range(1, 9):
            for base in PATTERNS[pattern](h, w):
                assert base.dtype == np.int64
                assert sorted(base.tolist()) == list(range(h * w)), (h, w)


@pytest.mark.parametrize("pattern", ["C", "S"])
@pytest.mark.parametrize(("h", "w"), [(5, 8), (6, 3), (1, 7), (7, 1)])
def test_continuous_routes_never_jump(pattern, h, w):
    for base in PATTERNS[pattern](h, w):
        rows, cols = np.divmod(base, w)
        assert (np.abs(np.diff(rows)) + np.abs(np.diff(cols)) == 1).all()


@pytest.mark.parametrize("pattern", list_patterns())
def test_large_map(pattern):
    order, inverse = route_table(pattern, 1000, 1000)
    assert (order.gather(1, inverse) == order.new_tensor(range(1_000_000))).all()


def test_unknown_pattern_lists_the_known():
    with pytest.raises(ValueError, match="unknown scan pattern 'Q'; known: C, X, S, Z"):
        route_table("Q", 4, 4)


def test_a_new_pattern_is_one_function(registered):
    def backwards(h, w):
        cells = np.arange(h * w)
        return cells[::-1], cells

    registered(PATTERNS, "backwards", backwards)
    order, _ = route_table("backwards", 2, 2)
    assert order.tolist() == [[3, 2, 1, 0], [0, 1, 2, 3]]


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="scan pattern 'C' is registered already"):
        register_pattern("C")(lambda h, w: None)


@pytest.mark.parametrize(
    "bases",
    [
        ([0, 1, 2, 2], [0, 1, 2, 3]),
        ([0, 1, 2], [0, 1, 2]),
        ([1, 2, 3, 4], [0, 1, 2, 3]),
        ([0, 1, 2, 3],),
    ],
)
def test_a_pattern_that_misses_a_cell_is_an_error(registered, bases):
    registered(PATTERNS, "broken", lambda h, w: tuple(np.array(base) for base in bases))
    with pytest.raises(ValueError, match="'broken' must return two permutations of the 4 cells of a 2 x 2 map"):
        route_table("broken", 2, 2)
