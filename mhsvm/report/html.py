"""The page of a test: one HTML file that needs nothing else, no network either."""

import html
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from string import Template

from mhsvm.report import sections
from mhsvm.report.gallery import ShownCase, gallery_data, gates_data
from mhsvm.report.groups import group_cases
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.report.training import Training
from mhsvm.store import GateMaps


def report_page(
    run: MeasuredRun,
    cases: Sequence[ShownCase],
    *,
    training: Training | None,
    times: Mapping | None,
    maps: GateMaps | None,
) -> str:
    """The whole page as text.

    Args:
        run: A test.
        cases: Of its images, in the order of its scores.
        training: Of its checkpoint; None where it is not at hand.
        times: What the test took, as `times.json` has it; None of older tests.
        maps: What gates did on some images; None where it was not kept.
    """
    summary = run.summary
    protocol, leakage = summary["protocol"], summary["leakage"]
    groupings = group_cases([case.facts for case in cases], run.scores)
    data = {
        "gallery": gallery_data(
            cases,
            run.scores,
            groupings,
            seen=leakage["seen"],
            size=protocol["set"]["size"],
            threshold=protocol["threshold"],
        ),
        "gates": None if maps is None else gates_data(maps),
    }
    network = summary["model"]["name"]
    name = training.name if training is not None else run.name
    parts = {
        "title": html.escape(f"{name}: {run.folder.resolve().name}"),
        "name": html.escape(name),
        "lead": html.escape(
            f"{network} on {protocol['num_images']} test images of {protocol['set']['name']}, split "
            f"{protocol['split']} ({protocol['split_hash'][:12]}), measured at {protocol['measured_at']}"
        ),
        "warnings": sections.warnings(summary, training),
        "headlines": sections.headlines(summary),
        "metrics": sections.metrics(run),
        "groups": sections.groups(groupings, summary["intervals"]["confidence"]),
        "training": sections.curves_and_costs(training, times),
        "data": sections.data(summary),
        "configuration": sections.configuration(summary, training),
        "gates_hidden": "hidden" if maps is None else "",
        "style": _read("report.css"),
        "script": _read("report.js"),
        # a script ends at "</", wherever it stands
        "payload": json.dumps(data, separators=(",", ":"), allow_nan=False).replace("</", "<\\/"),
    }
    return Template(_read("report.html")).substitute(parts)


def _read(name: str) -> str:
    return resources.files("mhsvm.report").joinpath("page", name).read_text(encoding="utf-8")
