"""The rendered page: text is escaped, and embedded data cannot leave its script."""

import html.parser
import json
import re
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


def many_images(jaccard: float):
    """A page of 12 images whose Jaccard index is the same."""
    ids = tuple(f"image {place}" for place in range(12))
    run = measured_run(ids)
    inside = round(1000 * jaccard)
    scores = Scores(ids, torch.tensor([[[inside, 1000 - inside, 0, 0]]] * len(ids)))
    run = MeasuredRun(run.name, run.folder, run.summary, scores)
    cases = [ShownCase(CaseFacts(0.1, False, 50.0), {"image": "data:,"}) for _ in ids]
    return render_page(run, cases, training=None, times=None, maps=None)


def test_the_axis_of_group_intervals_starts_below_the_lowest_one():
    # Jaccard 0.5 is Dice 2/3, and 0.95 is Dice 0.974
    for jaccard, start, place in ((0.5, 0.6, (2 / 3 - 0.6) / 0.4), (0.95, 0.9, (1.9 / 1.95 - 0.9) / 0.1)):
        page = many_images(jaccard)
        assert f"<i>{start}</i><i>dsc</i><i>1</i>" in page
        assert f"drawn on an axis from {start} to 1" in page
        assert f'<i style="left:{place:.1%}"></i>' in page


def test_a_metric_has_one_name_on_the_whole_page():
    page = many_images(0.5)
    assert re.findall(r"<dt>(.*?)</dt>", page) == [
        "dsc, pooled",
        "dsc, per image",
        "miou, pooled",
        "miou, per image",
        "jaccard_thresholded",
    ]
    # the other names are explained once
    text = page.partition("<body>")[2].partition('<script type="application/json"')[0]
    assert (text.count("Dice"), text.count("Jaccard")) == (1, 2)


def test_notes_are_outside_of_the_tables_that_scroll():
    page = many_images(0.5)
    tables = re.findall(r'<div class="scroll".*?</table></div>', page, re.S)
    assert len(tables) > 3
    assert not any("uncalibrated" in table for table in tables)
    assert re.search(r'</div><p class="quiet note">from uncalibrated images: [^<]*</p>', page)


def relative_luminance(color: str) -> float:
    """Source: WCAG 2.2, relative luminance of sRGB."""
    digits = color.removeprefix("#")
    digits = "".join(2 * each for each in digits) if len(digits) == 3 else digits
    levels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return sum(weight * level for weight, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_text_and_curves_have_contrast_in_light_and_dark():
    style = many_images(0.5).partition("<style>")[2].partition("</style>")[0]
    light, dark = (dict(re.findall(r"--([\w-]+): (#\w+)", part)) for part in re.findall(r":root \{.*?\}", style, re.S))
    assert set(light) == set(dark)
    for colors in (light, dark):
        for text in ("ink", "quiet", "accent", "bar", "second"):
            for ground in ("paper", "panel", "warning"):
                if text == "second" and ground != "paper":
                    continue
                values = sorted(relative_luminance(colors[name]) + 0.05 for name in (text, ground))
                assert values[1] / values[0] >= 4.5, (text, ground)


def test_synthetic_images_are_called_so():
    run = measured_run(("a",))
    run.summary["protocol"]["set"] |= {"name": "synthetic-mine", "synthetic": True}
    case = ShownCase(CaseFacts(0.1, False, None), {"image": "data:,"})
    page = render_page(run, [case], training=None, times=None, maps=None)
    assert "on 1 synthetic test images of synthetic-mine" in page
    assert "The images are synthetic: the metrics say nothing about real lesions." in page
    assert "<code>synthetic-mine, 4 x 4, synthetic images</code>" in page
