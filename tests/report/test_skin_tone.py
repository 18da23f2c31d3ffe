"""The typology angle of known colors, and pixels that are not skin."""

import math

import numpy as np
import pytest

from mhsvm.report.skin_tone import tone_labels, tone_of, typology_angle

NO_LESION = np.zeros((64, 64), bool)
SKIN = (222, 184, 150)


def plain_image(color=SKIN) -> np.ndarray:
    return np.tile(np.array(color, np.uint8), (64, 64, 1))


# L* and b* under D65, from tables of the corners of sRGB
@pytest.mark.parametrize(
    ("color", "lightness", "yellowness"),
    [((255, 0, 0), 53.2408, 67.2032), ((0, 255, 0), 87.7347, 83.1793), ((255, 255, 0), 97.1393, 94.4780)],
)
def test_the_angle_is_that_of_the_color(color, lightness, yellowness):
    expected = math.degrees(math.atan((lightness - 50) / yellowness))
    assert typology_angle(plain_image(color), NO_LESION) == pytest.approx(expected, abs=0.01)


def test_dark_skin_has_a_negative_angle():
    assert typology_angle(plain_image((110, 75, 50)), NO_LESION) < -10


def test_lesion_vignette_and_hairs_change_nothing():
    plain = typology_angle(plain_image(), NO_LESION)
    image, lesion = plain_image(), NO_LESION.copy()
    lesion[20:40, 20:40] = True
    # the lesion fades beyond its boundary
    image[19:41, 19:41] = (60, 30, 20)
    rows, columns = np.mgrid[:64, :64]
    distance = np.hypot(rows - 31.5, columns - 31.5)
    image[distance > 36] = (10, 10, 12)
    image[(distance > 35) & (distance <= 36)] = (120, 90, 70)
    image[::16] = (20, 15, 10)
    assert typology_angle(image, lesion) == plain


def test_without_skin_there_is_no_angle():
    assert typology_angle(plain_image(), ~NO_LESION) is None
    assert typology_angle(plain_image((5, 5, 5)), NO_LESION) is None
    assert typology_angle(plain_image((150, 150, 220)), NO_LESION) is None


def test_five_classes():
    labels = tone_labels()
    assert labels == [
        "very light (above 55°)",
        "light (41 to 55°)",
        "intermediate (28 to 41°)",
        "tan (10 to 28°)",
        "brown or dark (up to 10°)",
    ]
    assert [labels.index(tone_of(angle)) for angle in (90, 55.1, 55, 41, 28, 10.1, 10, -90)] == [0, 0, 1, 2, 3, 3, 4, 4]
