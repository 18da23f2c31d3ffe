"""Comparisons with raters, for a summary, a reader and a table."""

import math
from collections.abc import Mapping
from pathlib import Path

from mhsvm.evaluation.raters import PREDICTION, RaterScores, all_but
from mhsvm.evaluation.scores import case_rows, describe_scores, format_interval, format_metric
from mhsvm.metrics import Scores
from mhsvm.table import format_table
from mhsvm.text_file import split_lines, write_table

FILE = "raters.csv"
# Metrics for a reader; the summary has all of them.
_SHOWN = ("dsc_per_image", "miou_per_image", "nsd_per_image", "hd95_per_image")


def describe_raters(raters: RaterScores) -> dict:
    """Describe the comparisons for a summary.

    Returns:
        Numbers of raters, masks and images; `against`, the prediction against each consensus and rater; `among`, for
        each rater the majority of the others as the reference of the rater and of the prediction; `all_masks`, the
        means of both over the masks of all raters; `pairs`, the means over all pairs of raters.
    """
    settings = raters.settings
    among: dict[str, dict] = {}
    for rater in settings.raters:
        of_rater, of_prediction = (raters.scores(mask, [all_but(rater)]) for mask in (rater, PREDICTION))
        if of_rater is not None and of_prediction is not None:
            among[rater] = {"rater": _describe(of_rater), PREDICTION: _describe(of_prediction)}
    return {
        "raters": list(settings.raters),
        "num_masks": raters.num_masks,
        "num_images": raters.num_images,
        "num_several": raters.num_several,
        "note": settings.note,
        "against": {
            name: _describe(scores)
            for name in (*settings.consensus, *settings.raters)
            if (scores := raters.scores(PREDICTION, [name])) is not None
        },
        "among": among,
        "all_masks": _describe_all(raters),
        "pairs": _means(raters.pairs()),
    }


def rater_lines(described: Mapping) -> list[str]:
    """The comparisons for a reader; see `describe_raters`."""
    lines = [
        f"{len(described['raters'])} raters, {described['num_masks']} masks of {described['num_images']} images, "
        f"{described['num_several']} of them with two or more"
    ]
    lines += [described["note"]] if described["note"] else []
    shown = rater_metrics(described)
    rows = [[name, str(each["num_images"]), *_cells(each, shown)] for name, each in described["against"].items()]
    header = ["prediction against", "images", *(cell for name in shown for cell in (name, "95% interval"))]
    lines += split_lines(format_table(header, rows))
    rows = []
    for rater, each in described["among"].items():
        for mask, name in ((each["rater"], rater), (each[PREDICTION], PREDICTION)):
            rows.append([all_but(rater), name, str(mask["num_images"]), *_cells(mask, shown)])
    if rows:
        header = ["majority of", "mask", "images", *(cell for name in shown for cell in (name, "95% interval"))]
        lines += split_lines(format_table(header, rows))
    whole, pairs = described["all_masks"], described["pairs"]
    if whole is not None:
        for name, label in (("raters", "raters"), (PREDICTION, PREDICTION)):
            means = ", ".join(f"{key} {format_metric(whole[name][key])}" for key in shown)
            lines.append(f"{label} against the majority of the others, {whole['num_masks']} masks: {means}")
    if pairs is not None:
        means = ", ".join(f"{key} {format_metric(pairs['metrics'][key])}" for key in shown)
        lines.append(f"pairs of raters, {pairs['num_pairs']}: {means}")
    return lines


def rater_metrics(described: Mapping) -> list[str]:
    """The metrics for a reader that were measured; see `describe_raters`."""
    return [name for name in _SHOWN if any(name in each["metrics"] for each in described["against"].values())]


def write_raters(path: Path, raters: RaterScores) -> None:
    """Write a row for each comparison of an image, for several classes one for each of them too."""
    num_classes, rows, header = raters.settings.num_classes, [], ["id", "mask", "reference"]
    names: list[str] = []
    for mask, reference, scores in raters:
        names, own = case_rows(scores, num_classes=num_classes)
        rows += [[row[0], mask, reference, *row[1:]] for row in own]
    write_table(path, [*header, *names[1:]], rows)


def _describe(scores: Scores) -> dict:
    described = describe_scores(scores)
    return {
        "num_images": len(scores),
        "metrics": described["metrics"],
        "limits": described["intervals"]["limits"],
    }


def _describe_all(raters: RaterScores) -> dict | None:
    """Means over the masks of all raters, each against the majority of the others of its image."""
    of_raters = [raters.scores(rater, [all_but(rater)]) for rater in raters.settings.raters]
    found = [scores for scores in of_raters if scores is not None]
    predicted = raters.scores(PREDICTION, [all_but(rater) for rater in raters.settings.raters])
    if not found or predicted is None:
        return None
    joined = Scores.join(found)
    return {"num_masks": len(joined), "raters": _averaged(joined), PREDICTION: _averaged(predicted)}


def _means(scores: Scores | None) -> dict | None:
    return None if scores is None else {"num_pairs": len(scores), "metrics": _averaged(scores)}


def _averaged(scores: Scores) -> dict:
    """Metrics that are means over rows; pooled ones would weigh images by their number of masks."""
    return {
        name: None if math.isnan(value) else value
        for name, value in scores.metrics().items()
        if name.endswith("_per_image") or name == "jaccard_thresholded"
    }


def _cells(described: Mapping, names: list[str]) -> list[str]:
    cells = []
    for name in names:
        cells += [format_metric(described["metrics"][name]), format_interval(described["limits"][name])]
    return cells
