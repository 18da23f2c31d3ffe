"""The words and tables of a test's page, as HTML."""

import html
from collections.abc import Iterable, Mapping, Sequence

from mhsvm.evaluation.scores import format_figure, format_interval
from mhsvm.metrics import BOUNDARY, per_image
from mhsvm.metrics.summary import POOLED
from mhsvm.report import charts
from mhsvm.report.groups import LEAST_IMAGES, Grouping
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.report.training import Training, format_duration

_HEADLINES = {
    "dsc": "Dice, pooled",
    "dsc_per_image": "Dice, per image",
    "miou": "Jaccard, pooled",
    "miou_per_image": "Jaccard, per image",
    "jaccard_thresholded": "Jaccard, thresholded (ISIC)",
}
_GROUP_FIGURES = {
    "dsc_per_image": "Dice, per image",
    "miou_per_image": "Jaccard, per image",
    "jaccard_thresholded": "Jaccard, thresholded",
}


def headlines(summary: Mapping) -> str:
    """The figures that papers print, each with its interval."""
    metrics, limits = summary["metrics"], summary["intervals"]["limits"]
    tiles = (
        f"<div><dt>{label}</dt><dd>{format_figure(metrics[name])}<small>{format_interval(limits[name])}</small></dd></div>"
        for name, label in _HEADLINES.items()
    )
    return f'<dl class="tiles">{"".join(tiles)}</dl>'


def warnings(summary: Mapping, training: Training | None) -> str:
    """What makes the figures look better than they are, or other than they will be."""
    protocol, leakage, lines = summary["protocol"], summary["leakage"], []
    if protocol["trained_on"] or protocol["chosen_on"]:
        lines.append(
            f"The checkpoint was trained on {protocol['trained_on']} of the test images and chosen on "
            f"{protocol['chosen_on']}: its figures come out too good."
        )
    if leakage["seen"] and not leakage["dropped"]:
        lines.append(
            f"{len(leakage['seen'])} test images are in training or have a near-duplicate there; the figures without "
            "them stand under Data."
        )
    if training is not None and len(training.history) < training.epochs:
        lines.append(f"The training has done {len(training.history)} of {training.epochs} epochs.")
    return "".join(f'<p class="warning">{html.escape(line)}</p>' for line in lines)


def metrics(run: MeasuredRun) -> str:
    """All figures with intervals, and what the images and probabilities spread over."""
    summary = run.summary
    parts = [_figures_table(summary, f"At {summary['protocol']['measured_at']}")]
    if summary["native"] is not None:
        parts.append(_figures_table(summary["native"], "At the images' own sizes"))
    if "classes" in summary:
        header = ("class", *(_HEADLINES[name] for name in ("dsc", "dsc_per_image", "miou")))
        rows = [
            [label, *(_with_interval(name, alone) for name in ("dsc", "dsc_per_image", "miou"))]
            for label, alone in summary["classes"].items()
        ]
        parts.append(table("Each class", header, rows))
    drawn = [charts.dice_histogram(per_image(run.scores.counts)["dice"].mean(dim=1).tolist())]
    drawn.append(charts.reliability_curve(summary["calibration"]["bins"]))
    if "thresholds" in summary:
        drawn.append(charts.threshold_curves(summary["thresholds"], summary["protocol"]["threshold"]))
    note = f"Expected calibration error {summary['calibration']['ece']:.4f}."
    return f"{''.join(parts)}{figures(drawn)}<p>{note}</p>"


def groups(groupings: Iterable[Grouping], confidence: float) -> str:
    """A table for each property, with a bar for the interval of the Dice."""
    header = ["", "images", *_GROUP_FIGURES.values(), '<span class="scale"><i>0</i><i>Dice</i><i>1</i></span>']
    parts = [
        f"<p>Means over images with {confidence:.0%} bootstrap intervals; "
        f"none for groups of fewer than {LEAST_IMAGES} images.</p>"
    ]
    for grouping in groupings:
        rows = [
            [html.escape(group.label), str(len(group.rows)), *_group_cells(group.described)]
            for group in grouping.groups
        ]
        note = f' <span class="quiet">{html.escape(grouping.note)}</span>' if grouping.note else ""
        parts.append(table(f"By {grouping.title}{note}", header, rows))
    return "".join(parts)


def curves_and_costs(training: Training | None, times: Mapping | None) -> str:
    """Learning curves, and what training and test took."""
    curves, rows = "<p>There are no learning curves: the checkpoint is not in the folder of its training.</p>", []
    if training is not None:
        curves = figures(charts.learning_curves(training.history))
        cost = training.cost
        rows.append(["training", *_cost_cells(cost.seconds, cost.memory_gib, cost.hardware)])
    if times is not None:
        hardware = f"{times['device']}, torch {times['torch']}"
        rows.append(["test", *_cost_cells(times["seconds"], times["memory_gib"], hardware)])
    return curves + (table("What it took", ("", "time", "memory, at most", "on"), rows) if rows else "")


def data(summary: Mapping) -> str:
    """Set, split and checkpoint, each with its hash, and what training has seen of the test."""
    protocol, checkpoint, leakage = summary["protocol"], summary["checkpoint"], summary["leakage"]
    h, w = protocol["set"]["size"]
    trained_on = "not recorded" if protocol["trained_on"] is None else str(protocol["trained_on"])
    rows = [
        ("set", f"{protocol['set']['name']}, {h} x {w}"),
        ("checksum of the set", protocol["set"]["checksum"]),
        ("split", f"{protocol['split']} ({protocol['reason']})"),
        ("sha256 of the split", protocol["split_hash"]),
        ("test images", str(protocol["num_images"])),
        ("of these trained on, by id", trained_on),
        # of several classes the likeliest is taken
        *([("threshold", str(protocol["threshold"]))] if summary["model"]["num_classes"] == 1 else []),
        ("measured at", protocol["measured_at"]),
        ("checkpoint", checkpoint["file"] + (" (published)" if checkpoint["published"] else "")),
        ("sha256 of the checkpoint", checkpoint["sha256"]),
        ("version", ", ".join(f"{name} {value}" for name, value in summary["version"].items())),
    ]
    shown = [[f"<th scope=row>{html.escape(name)}</th>", f"<code>{html.escape(value)}</code>"] for name, value in rows]
    return table("", (), shown, classes="facts") + _leakage(leakage)


def configuration(summary: Mapping, training: Training | None) -> str:
    """The network's arguments, and the training's whole config."""
    rows = [
        [f"<th scope=row>{html.escape(name)}</th>", html.escape(str(value))] for name, value in summary["model"].items()
    ]
    whole = ""
    if training is not None:
        whole = f"<details><summary>config.yaml</summary><pre>{html.escape(training.config)}</pre></details>"
    return table("Network", (), rows, classes="facts") + whole


def figures(drawn: Sequence[str]) -> str:
    """Drawings side by side, as many as fit."""
    return f'<div class="figures">{"".join(f"<figure>{each}</figure>" for each in drawn)}</div>' if drawn else ""


def table(caption: str, header: Sequence[str], rows: Iterable[Sequence[str]], *, classes: str = "") -> str:
    """A table; caption, names and cells are HTML already, and cells that are `<th>` themselves stay as they are."""
    head = f"<thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in header)}</tr></thead>" if header else ""
    body = "".join(
        f"<tr>{''.join(cell if cell.startswith('<th') else f'<td>{cell}</td>' for cell in row)}</tr>" for row in rows
    )
    title = f"<caption>{caption}</caption>" if caption else ""
    # wide tables scroll by themselves, which needs the focus without a mouse
    whole = f'<table class="{classes}">{title}{head}<tbody>{body}</tbody></table>'
    return f'<div class="scroll" role="group" tabindex="0">{whole}</div>'


def _figures_table(described: Mapping, caption: str) -> str:
    """Pooled and per-image figures side by side, each with its interval."""
    rows = [
        [f"<th scope=row>{name}</th>", _with_interval(name, described), _with_interval(f"{name}_per_image", described)]
        for name in POOLED
    ]
    averaged = {"jaccard_thresholded": "jaccard_thresholded"}
    averaged |= {f"{name}_per_image": f"{name}, pixels" for name in BOUNDARY}
    rows += [
        [f"<th scope=row>{label}</th>", "", _with_interval(name, described)]
        for name, label in averaged.items()
        if name in described["metrics"]
    ]
    skipped = described.get("boundary", {}).get("images_without_outline", 0)
    note = f"<p>{skipped} images have no distances, because prediction or truth is empty.</p>" if skipped else ""
    confidence = f"{described['intervals']['confidence']:.0%} intervals"
    return table(f"{html.escape(caption)}, with {confidence}", ("", "pooled", "per image"), rows) + note


def _with_interval(name: str, described: Mapping) -> str:
    interval = format_interval(described["intervals"]["limits"][name])
    return f'{format_figure(described["metrics"][name])} <span class="quiet">{interval}</span>'


def _group_cells(described: Mapping | None) -> list[str]:
    if described is None:
        return [*["too few"] * len(_GROUP_FIGURES), ""]
    cells = [_with_interval(name, described) for name in _GROUP_FIGURES]
    (low, high), value = described["intervals"]["limits"]["dsc_per_image"], described["metrics"]["dsc_per_image"]
    bar = f'<b style="left:{low:.1%};width:{high - low:.1%}"></b><i style="left:{value:.1%}"></i>'
    return [*cells, f'<span class="bar" aria-hidden="true">{bar}</span>']


def _cost_cells(seconds: float | None, memory_gib: float | None, hardware: str) -> list[str]:
    return [
        "not recorded" if seconds is None else format_duration(seconds),
        "not recorded" if memory_gib is None else f"{memory_gib:.2f} GiB",
        html.escape(hardware) or "not recorded",
    ]


def _leakage(leakage: Mapping) -> str:
    unknown = f"<p>{html.escape(leakage['unknown'])}.</p>" if leakage["unknown"] else ""
    if not leakage["seen"]:
        return unknown or "<p>No test image is in training, or has a near-duplicate there.</p>"
    counts = ", ".join(f"{kind} {count}" for kind, count in leakage["counts"].items())
    names = ("miou", "dsc", "miou_per_image", "dsc_per_image")
    rows = [
        [
            f"<th scope=row>{label}</th>",
            str(leakage["num_images"][part]),
            *(format_figure(values[name]) for name in names),
        ]
        for part, label in (("every", "with seen images"), ("unseen", "without them"))
        if (values := leakage["metrics"][part]) is not None
    ]
    own = " The figures of this page are those without them." if leakage["dropped"] else ""
    return (
        table("What training has seen", ("", "images", *names), rows)
        + f"<p>Test images with a counterpart in training, by kind: {html.escape(counts)}.{own}</p>{unknown}"
    )
