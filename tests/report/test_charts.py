"""Charts are complete SVG in the page's text color, without ids in common."""

import re
from xml.etree import ElementTree

import pytest

from mhsvm.report.charts import dice_histogram, learning_curves, reliability_curve, threshold_curves

EPOCH = {"train_loss": 1.0, "val_loss": 2.0, "val_dsc": 0.5, "val_miou": 0.4}
BIN = {"num_pixels": 5, "probability": 0.4, "frequency": 0.5}
EMPTY = {"num_pixels": 0, "probability": None, "frequency": None}


def charts() -> list[str]:
    return [
        *learning_curves([{"epoch": 1, **EPOCH}, {"epoch": 2, **EPOCH}]),
        dice_histogram([0.0, 0.5, 0.5, 1.0]),
        reliability_curve([BIN, EMPTY, BIN]),
        threshold_curves([{"threshold": at, "dsc": at, "miou": at} for at in (0.25, 0.75)], 0.5),
    ]


def test_charts_are_complete_and_independent():
    names = []
    for chart in charts():
        root = ElementTree.fromstring(chart)
        assert root.attrib["role"] == "img"
        assert root.attrib["aria-label"]
        assert "width" not in root.attrib
        assert "currentColor" in chart
        # no placeholder of a color is left, and both axes are labeled
        assert not re.search("#0[0-9]0[0-9]0[0-9]", chart)
        assert len(re.findall(r"text-anchor: middle[^>]*rotate\(-90", chart)) == 1
        own = re.findall(r' id="([^"]+)"', chart)
        assert set(re.findall(r'(?:href="|url\()#([^")]+)', chart)) <= set(own)
        names += own
    assert len(set(names)) == len(names)


def test_charts_are_the_same_when_drawn_again():
    assert charts() == charts()


@pytest.mark.parametrize("num", [0, 1])
def test_short_trainings(num):
    drawn = learning_curves([{"epoch": 1, **EPOCH}] * num)
    assert [re.search('aria-label="([^"]+)"', chart)[1] for chart in drawn] == [
        "Learning curves: loss",
        "Learning curves: validation",
    ][: 2 * num]
