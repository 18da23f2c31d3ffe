"""Groups of images: their members, and the metrics of groups that are large enough."""

import numpy as np
import pytest
import torch

from mhsvm.evaluation.scores import describe_scores
from mhsvm.metrics import Scores
from mhsvm.report.groups import CaseFacts, case_facts, group_cases


def test_facts_of_an_image():
    image = np.full((10, 20, 3), (222, 184, 150), np.uint8)
    truth = np.zeros((10, 20), np.uint8)
    truth[4:6, 5:10] = 2
    facts = case_facts(image, truth)
    assert (facts.lesion_fraction, facts.touches_frame) == (0.05, False)
    assert facts.tone_angle == pytest.approx(47, abs=5)
    truth[0, 19] = 1
    assert case_facts(image, truth).touches_frame
    # pixels that are not counted are neither lesion nor skin
    truth[:] = 255
    assert case_facts(image, truth) == CaseFacts(0.0, False, None)


def facts_of(num: int, fraction: float, *, touches=False, angle: float | None = 50.0) -> list[CaseFacts]:
    return [CaseFacts(fraction, touches, angle)] * num


def test_groups_are_whole_ordered_and_measured_alone():
    facts = facts_of(12, 0.4, touches=True) + facts_of(10, 0.05, angle=None) + facts_of(9, 0.049, angle=9.0)
    facts += facts_of(1, 0.0, angle=60.0)
    torch.manual_seed(0)
    scores = Scores(tuple(map(str, range(32))), torch.randint(1, 100, (32, 1, 4)))
    sizes, frames, tones = group_cases(facts, scores)
    assert {group.label: group.rows for group in sizes.groups} == {
        "below 5 %": tuple(range(22, 31)),
        "5 to 15 %": tuple(range(12, 22)),
        "40 % and more": tuple(range(12)),
        "no lesion": (31,),
    }
    assert [group.label for group in frames.groups] == ["inside", "touches the frame", "no lesion"]
    assert [(group.label, len(group.rows)) for group in tones.groups] == [
        ("very light (above 55°)", 1),
        ("light (41 to 55°)", 12),
        ("brown or dark (up to 10°)", 9),
    ]
    assert tones.note.startswith("from uncalibrated images")
    assert tones.note.endswith("10 images show too little skin, or bluish skin.")
    small, enough, large, none = sizes.groups
    assert (small.described, none.described) == (None, None)
    assert enough.described == describe_scores(scores.rows(torch.arange(12, 22)))
    assert large.described == describe_scores(scores.rows(torch.arange(12)))
