"""Masks over images: edges where regions end, colors that stay what they are."""

import itertools

import numpy as np
import pytest

from mhsvm.inference.overlay import (
    BLACK,
    GRAY,
    PREDICTION,
    TARGET,
    class_color,
    class_palette,
    draw_boundaries,
    draw_prediction,
    inner_boundary,
    tint_classes,
)


def square(side=12, first=3, last=9, value=1):
    labels = np.zeros((side, side), np.uint8)
    labels[first:last, first:last] = value
    return labels


def painted(drawn, color):
    return (drawn == np.array(color)).all(axis=-1)


@pytest.mark.parametrize("width", [1, 2])
def test_an_inner_boundary_is_the_inner_edge(width):
    labels = square()
    inner = square(first=3 + width, last=9 - width)
    np.testing.assert_array_equal(inner_boundary(labels, width), (labels > 0) & (inner == 0))


def test_an_inner_boundary_follows_the_border_of_the_map():
    expected = np.ones((5, 7), bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(inner_boundary(np.ones((5, 7), np.uint8), 1), expected)
    assert not inner_boundary(np.zeros((5, 7), np.uint8), 1).any()


def test_neighboring_classes_have_an_edge_between_them():
    labels = np.ones((5, 8), np.uint8)
    labels[:, 4:] = 2
    assert inner_boundary(labels, 1)[2].tolist() == [True, False, False, True, True, False, False, True]


def test_a_thin_line_above_a_broad_one_leaves_both_to_be_seen():
    image = np.full((12, 12, 3), 200, np.uint8)
    labels = square()
    drawn = draw_boundaries(image, [(labels, TARGET, 2), (labels, PREDICTION, 1)])
    np.testing.assert_array_equal(painted(drawn, PREDICTION), inner_boundary(labels, 1))
    np.testing.assert_array_equal(painted(drawn, TARGET), inner_boundary(labels, 2) & ~inner_boundary(labels, 1))
    assert painted(drawn, BLACK)[2, 2:10].all()
    assert (drawn[0] == 200).all()
    assert (image == 200).all()


def test_tints_show_the_image_and_name_the_class():
    image = np.full((12, 12, 3), 100, np.uint8)
    drawn = tint_classes(image, square(value=2), 1)
    np.testing.assert_array_equal(painted(drawn, class_color(2)), inner_boundary(square(), 1))
    expected = (100 * 0.6 + np.array(class_color(2)) * 0.4).astype(np.uint8)
    np.testing.assert_allclose(drawn[6, 6].astype(int), expected, atol=1)
    assert (drawn[0] == 100).all()


def test_class_colours():
    assert class_color(0) == BLACK
    assert class_color(255) == GRAY
    assert class_color(8) == class_color(1)
    first = [class_color(label) for label in range(1, 8)]
    assert len(set(first)) == 7
    weights = np.array([0.299, 0.587, 0.114])
    brightness = [float(np.dot(color, weights)) for color in first]
    assert all(abs(a - b) > 30 for a, b in itertools.pairwise(brightness))
    palette = class_palette()
    assert len(palette) == 768
    assert tuple(palette[3:6]) == class_color(1)


def test_predictions_are_drawn_wider_on_larger_images():
    shares = {}
    for side in (300, 1200):
        mask = square(side, side // 4, side // 2)
        drawn = draw_prediction(np.full((side, side, 3), 90, np.uint8), mask, num_classes=1)
        shares[side] = painted(drawn, PREDICTION)[side // 3].sum()
    assert shares == {300: 2, 1200: 8}
