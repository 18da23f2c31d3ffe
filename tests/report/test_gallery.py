"""The data that a page draws."""

import json
import math

import numpy as np
import torch

from mhsvm.metrics import Scores
from mhsvm.report.gallery import ShownCase, gallery_data, gates_data
from mhsvm.report.groups import CaseFacts, Group, Grouping
from mhsvm.report.images import gray_map
from mhsvm.store import BlockGates, GateMaps

NAN = math.nan


def test_cases_keep_their_order_and_undefined_distances_are_null():
    cases = [ShownCase(CaseFacts(fraction, False, None), {"image": f"data:{fraction}"}) for fraction in (0.1, 0.0)]
    counts = torch.tensor([[[3, 1, 0, 6]], [[0, 0, 0, 10]]])
    distances = torch.tensor([[[2.5, 1.0]], [[NAN, NAN]]]).double()
    grouping = Grouping("lesion size", "", (Group("below 5 %", (1,), None),))
    data = gallery_data(
        cases, Scores(("b", "a"), counts, distances), [grouping], seen=["b", "x"], size=(512, 256), threshold=0.4
    )
    json.dumps(data, allow_nan=False)
    assert data["cases"] == [
        {"id": "b", "dice": 6 / 7, "jaccard": 0.75, "hd95": 2.5, "lesionFraction": 0.1, "image": "data:0.1"},
        {"id": "a", "dice": 1.0, "jaccard": 1.0, "hd95": None, "lesionFraction": 0.0, "image": "data:0.0"},
    ]
    assert data["filters"] == [
        {"title": "lesion size", "label": "below 5 %", "rows": [1]},
        {"title": "training", "label": "seen, or a near-duplicate", "rows": [0]},
    ]
    assert (data["size"], data["threshold"]) == ([256, 128], 102.0)
    assert len(data["ramp"]) == len(data["classes"]) == 3 * 256


def test_gates_are_scaled_to_their_block():
    gate = np.array([[[[0.0, 1.0]], [[2.0, 4.0]]], [[[0.0, 0.0]], [[0.0, 0.0]]]], np.float32)
    share = np.array([[[0.5, 0.5], [0.25, 0.75]], [[NAN, NAN], [0.5, 0.5]]])
    block = BlockGates("decoder.1.blocks.0", gate, np.array([[0.5, 0.0], [1.0, 1.0]]), share)
    data = gates_data(GateMaps(("a", "b"), ("C", "S"), "relu", (block,)))
    json.dumps(data, allow_nan=False)
    assert (data["blocks"], data["gate"]) == (["decoder, stage 2, block 1"], "relu")
    (first,), (second,) = (image["blocks"] for image in data["images"])
    assert (first["highest"], first["means"], first["closed"]) == (4.0, [0.5, 3.0], [0.5, 0.0])
    assert first["maps"] == [gray_map(np.array([row], np.uint8)) for row in ([0, 64], [128, 255])]
    assert (second["highest"], second["routeFractions"]) == (0.0, [[None, None], [0.5, 0.5]])
    assert second["maps"] == [gray_map(np.zeros((1, 2), np.uint8))] * 2
