"""The rendered page: text is escaped, and embedded data cannot leave its script."""

import html.parser
import json
from pathlib import Path

import torch

from mhsvm.evaluation.calibration import describe_calibration
from mhsvm.evaluation.scores import describe_scores
from mhsvm.metrics import CalibrationCounts, Scores, summarize
from mhsvm.report.gallery import ShownCase
from mhsvm.report.groups import CaseFacts
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.report.rendering import render_page

# each of them ends or hides the rest of a script that embeds it as it is
TAGS = ("</script><p id=escaped>", "<!--<script>", "]]>&'\"")


class Scripts(html.parser.HTMLParser):
    """Collects the ids of elements, and the text of the page's data and of its title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.ids, self.texts, self._inside = [], {}, ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self._inside = dict(attributes).get("id", tag)
        self.ids.append(self._inside)

    def handle_data(self, data):
        self.texts[self._inside] = self.texts.get(self._inside, "") + data


def measured_run(ids) -> MeasuredRun:
    scores = Scores(ids, torch.tensor([[[30, 5, 10, 55]]] * len(ids)))
    counts = CalibrationCounts()
    counts.add(torch.rand(len(ids), 1, 4, 4), torch.ones(len(ids), 4, 4, dtype=torch.uint8))
    metrics = summarize(scores.counts)
    summary = describe_scores(scores) | describe_calibration(counts, num_classes=1)
    summary |= {
        "native": None,
        "model": {"name": TAGS[0], "num_classes": 1},
        "protocol": {
            "set": {"name": TAGS[1], "checksum": "c" * 64, "size": [4, 4]},
            **{"split": TAGS[2], "split_hash": "a" * 64, "reason": "<i>", "num_images": len(ids)},
            **{"trained_on": 0, "chosen_on": 0, "threshold": 0.5, "measured_at": "4 x 4 only"},
        },
        "checkpoint": {"file": "<b>.pt", "sha256": "b" * 64, "published": False},
        "version": {"mhsvm": "<u>"},
        "leakage": {
            **{"unknown": "<s>", "counts": {"same id": 1}, "seen": [ids[0]], "dropped": False},
            "num_images": {"every": len(ids), "unseen": len(ids) - 1},
            "metrics": {"every": metrics, "unseen": None},
        },
    }
    return MeasuredRun("<h1>", Path("folder"), summary, scores)


def test_an_id_that_looks_like_a_tag_stays_text():
    run = measured_run(TAGS)
    cases = [ShownCase(CaseFacts(0.1, False, None), {"image": "data:,"}) for _ in TAGS]
    page = render_page(run, cases, training=None, times=None, maps=None)
    parsed = Scripts(page)
    payload = json.loads(parsed.texts["payload"])
    assert [case["id"] for case in payload["gallery"]["cases"]] == list(TAGS)
    assert parsed.texts["title"].strip() == "<h1>: folder"
    # the text after the data is still the script of the page, and the only one
    assert '"use strict";' in parsed.texts["script"]
    assert page.count("<script") == 2
    # these tags are in no template
    assert not {"u", "s", "escaped"} & set(parsed.ids)
