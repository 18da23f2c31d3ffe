"""Masks over images: edges where regions end, colours that stay what they are."""

import itertools

import numpy as np
import pytest

from mhsvm.inference.overlay import (
    BLACK,
    GREY,
    PREDICTION,
    TRUTH,
    class_colour,
    class_palette,
    draw_outlines,
    draw_prediction,
    outline,
    tint_classes,
)


def square(side=12, first=3, last=9, value=1):
    labels = np.zeros((side, side), np.uint8)
    labels[first:last, first:last] = value
    return labels


def painted(picture, colour):
    return (picture == np.array(colour)).all(axis=-1)


@pytest.mark.parametrize("width", [1, 2])
def test_an_outline_is_the_inner_edge(width):
    labels = square()
    inner = square(first=3 + width, last=9 - width)
    np.testing.assert_array_equal(outline(labels, width), (labels > 0) & (inner == 0))


def test_an_outline_follows_the_border_of_the_map():
    expected = np.ones((5, 7), bool)
    expected[1:-1, 1:-1] = False
    np.testing.assert_array_equal(outline(np.ones((5, 7), np.uint8), 1), expected)
    assert not outline(np.zeros((5, 7), np.uint8), 1).any()


def test_neighbouring_classes_have_an_edge_between_them():
    labels = np.ones((5, 8), np.uint8)
    labels[:, 4:] = 2
    assert outline(labels, 1)[2].tolist() == [True, False, False, True, True, False, False, True]


def test_a_thin_line_above_a_broad_one_leaves_both_to_be_seen():
    image = np.full((12, 12, 3), 200, np.uint8)
    labels = square()
    picture = draw_outlines(image, [(labels, TRUTH, 2), (labels, PREDICTION, 1)])
    np.testing.assert_array_equal(painted(picture, PREDICTION), outline(labels, 1))
    np.testing.assert_array_equal(painted(picture, TRUTH), outline(labels, 2) & ~outline(labels, 1))
    assert painted(picture, BLACK)[2, 2:10].all()
    assert (picture[0] == 200).all()
    assert (image == 200).all()


def test_tints_show_the_image_and_name_the_class():
    image = np.full((12, 12, 3), 100, np.uint8)
    picture = tint_classes(image, square(value=2), 1)
    np.testing.assert_array_equal(painted(picture, class_colour(2)), outline(square(), 1))
    expected = (100 * 0.6 + np.array(class_colour(2)) * 0.4).astype(np.uint8)
    np.testing.assert_allclose(picture[6, 6].astype(int), expected, atol=1)
    assert (picture[0] == 100).all()


def test_class_colours():
    assert class_colour(0) == BLACK
    assert class_colour(255) == GREY
    assert class_colour(8) == class_colour(1)
    first = [class_colour(label) for label in range(1, 8)]
    assert len(set(first)) == 7
    weights = np.array([0.299, 0.587, 0.114])
    brightness = [float(np.dot(colour, weights)) for colour in first]
    assert all(abs(a - b) > 30 for a, b in itertools.pairwise(brightness))
    palette = class_palette()
    assert len(palette) == 768
    assert tuple(palette[3:6]) == class_colour(1)


def test_predictions_are_drawn_wider_on_larger_images():
    shares = {}
    for side in (300, 1200):
        mask = square(side, side // 4, side // 2)
        picture = draw_prediction(np.full((side, side, 3), 90, np.uint8), mask, num_classes=1)
        shares[side] = painted(picture, PREDICTION)[side // 3].sum()
    assert shares == {300: 2, 1200: 8}
