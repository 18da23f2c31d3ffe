"""The page of a test: one HTML file that needs nothing else, no network either."""

import math
from collections.abc import Mapping, Sequence
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from mhsvm.evaluation.ranking import ranking_line
from mhsvm.evaluation.rater_summary import rater_metrics
from mhsvm.evaluation.scores import absence_lines, averaged_metrics, format_interval, format_metric, format_predicted
from mhsvm.metrics import argument_line
from mhsvm.metrics.summary import POOLED
from mhsvm.report import charts
from mhsvm.report.gallery import ShownCase, gallery_data, gates_data
from mhsvm.report.groups import LEAST_IMAGES, Grouping, group_cases
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.report.training import Training, format_duration
from mhsvm.store import SYNTHETIC, GateMaps

_CONSTANTS = {
    # metrics have the names of summary.json
    "headlines": {
        "dsc": "dsc, pooled",
        "dsc_per_image": "dsc, per image",
        "miou": "miou, pooled",
        "miou_per_image": "miou, per image",
        "jaccard_thresholded": "jaccard_thresholded",
    },
    "group_metrics": {
        "dsc_per_image": "dsc, per image",
        "miou_per_image": "miou, per image",
        "jaccard_thresholded": "jaccard_thresholded",
    },
    "leakage_metrics": ("miou", "dsc", "miou_per_image", "dsc_per_image"),
    "pooled": POOLED,
    "averaged_metrics": averaged_metrics,
    "least_images": LEAST_IMAGES,
    "predicted": format_predicted,
    "argument_line": argument_line,
    "ranking_line": ranking_line,
    "rater_metrics": rater_metrics,
}


def render_page(
    run: MeasuredRun,
    cases: Sequence[ShownCase],
    *,
    training: Training | None,
    times: Mapping | None,
    maps: GateMaps | None,
) -> str:
    """Render the page of a test.

    Args:
        run: The test.
        cases: Its images, in the order of its scores.
        training: The training of its checkpoint; None if it is not available.
        times: Content of the test's times.json; None for tests of older versions.
        maps: Gate maps of some images; None if they were not kept.
    """
    summary = run.summary
    protocol, leakage = summary["protocol"], summary["leakage"]
    groupings = group_cases([case.facts for case in cases], run.scores)
    gallery = gallery_data(
        cases,
        run.scores,
        groupings,
        seen=leakage["seen"],
        size=protocol["set"]["size"],
        threshold=protocol["threshold"],
    )
    gates = None if maps is None else gates_data(maps)
    environment = _environment()
    return environment.get_template("report.html").render(
        name=run.name if training is None else training.name,
        test_name=run.folder.resolve().name,
        summary=summary,
        protocol=protocol,
        leakage=leakage,
        training=training,
        warnings=_warnings(run, training),
        metric_charts=[Markup(chart) for chart in _metric_charts(run)],
        groupings=groupings,
        axis_start=_axis_start(groupings),
        curves=[Markup(chart) for chart in charts.learning_curves(training.history)] if training else [],
        costs=_costs(training, times),
        facts=_facts(summary),
        gates=gates,
        payload={"gallery": gallery, "gates": gates},
        style=_source(environment, "report.css"),
        script=_source(environment, "report.js"),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("mhsvm.report"),
        autoescape=True,
        undefined=StrictUndefined,
        keep_trailing_newline=True,
    )
    environment.filters |= {"metric": format_metric, "interval": format_interval, "percent": _percent}
    environment.globals |= _CONSTANTS
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    return environment


def _source(environment: Environment, name: str) -> Markup:
    """A file of the package as it is: style and script are no templates."""
    assert environment.loader is not None
    return Markup(environment.loader.get_source(environment, name)[0])


def _percent(fraction: float, digits: int = 0) -> str:
    return f"{fraction:.{digits}%}"


def _warnings(run: MeasuredRun, training: Training | None) -> list[str]:
    """Reasons why the metrics are better than those of new images, not final, or not of all classes."""
    protocol, leakage, lines = run.summary["protocol"], run.summary["leakage"], []
    if SYNTHETIC in protocol["set"]:
        lines.append("The images are synthetic: the metrics say nothing about real lesions.")
    absent = absence_lines(run.scores)
    if absent and "classes" in run.summary and "mean_over" not in run.summary:
        lines.append("A class is absent from the ground truth, and the means of this older test count it: test again.")
    else:
        lines += [f"{line[0].upper()}{line[1:]}." for line in absent]
    if protocol["trained_on"] or protocol["chosen_on"]:
        lines.append(
            f"The checkpoint was trained on {protocol['trained_on']} of the test images and chosen on "
            f"{protocol['chosen_on']}: its metrics are too good."
        )
    if leakage["seen"] and not leakage["dropped"]:
        lines.append(
            f"{len(leakage['seen'])} test images are in training or have a near-duplicate there; the metrics without "
            "them are under Data."
        )
    if training is not None and len(training.history) < training.epochs:
        lines.append(f"The training has done {len(training.history)} of {training.epochs} epochs.")
    return lines


def _metric_charts(run: MeasuredRun) -> list[str]:
    summary = run.summary
    drawn = [
        charts.dice_histogram(run.scores.per_image()["dice"].tolist()),
        charts.reliability_curve(summary["calibration"]["bins"]),
    ]
    if "thresholds" in summary:
        drawn.append(charts.threshold_curves(summary["thresholds"], summary["protocol"]["threshold"]))
    return drawn


def _axis_start(groupings: Sequence[Grouping]) -> float:
    """Start of the axis of all groups' intervals, in tenths; its end is 1."""
    described = [group.described for grouping in groupings for group in grouping.groups if group.described]
    lows = [each["intervals"]["limits"]["dsc_per_image"][0] for each in described]
    # None where no class of the mean occurs, as in images without a lesion
    return min(math.floor(10 * min((low for low in lows if low is not None), default=0)) / 10, 0.9)


def _costs(training: Training | None, times: Mapping | None) -> list[tuple[str, ...]]:
    """Time, memory and hardware of training and test."""
    rows: list[tuple[str, ...]] = []
    if training is not None:
        cost = training.cost
        rows.append(("training", *_cost_cells(cost.seconds, cost.memory_gib, cost.hardware)))
    if times is not None:
        hardware = f"{times['device']}, torch {times['torch']}"
        rows.append(("test", *_cost_cells(times["seconds"], times["memory_gib"], hardware)))
    return rows


def _cost_cells(seconds: float | None, memory_gib: float | None, hardware: str) -> tuple[str, str, str]:
    return (
        "not recorded" if seconds is None else format_duration(seconds),
        "not recorded" if memory_gib is None else f"{memory_gib:.2f} GiB",
        hardware or "not recorded",
    )


def _facts(summary: Mapping) -> list[tuple[str, object]]:
    """Set, split and checkpoint, each with its hash."""
    protocol, checkpoint = summary["protocol"], summary["checkpoint"]
    h, w = protocol["set"]["size"]
    # with several classes there is no threshold
    threshold = [("threshold", protocol["threshold"])] if summary["model"]["num_classes"] == 1 else []
    return [
        ("set", f"{protocol['set']['name']}, {h} x {w}{', synthetic images' if SYNTHETIC in protocol['set'] else ''}"),
        ("checksum of the set", protocol["set"]["checksum"]),
        ("split", f"{protocol['split']} ({protocol['reason']})"),
        ("sha256 of the split", protocol["split_hash"]),
        ("test images", protocol["num_images"]),
        ("test images trained on, by id", "not recorded" if protocol["trained_on"] is None else protocol["trained_on"]),
        *threshold,
        ("measured at", protocol["measured_at"]),
        ("checkpoint", checkpoint["file"] + (" (published)" if checkpoint["published"] else "")),
        ("sha256 of the checkpoint", checkpoint["sha256"]),
        ("version", ", ".join(f"{name} {value}" for name, value in summary["version"].items())),
    ]
