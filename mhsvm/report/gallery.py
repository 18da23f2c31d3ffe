"""The data that a page draws: the images of each case, once, and gate maps of some of them.

Shape letters: h w the map in pixels, k classes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps

from mhsvm.inference.overlay import PREDICTION, TARGET, VERMILLION, class_palette
from mhsvm.metrics import Scores
from mhsvm.report import images
from mhsvm.report.groups import CaseFacts, Grouping, case_facts
from mhsvm.store import BlockGates, GateMaps


@dataclass(frozen=True)
class ShownCase:
    """A case as a page shows it.

    Attributes:
        facts: Properties by which cases are grouped.
        urls: Name -> data URL of `image`, `target` and `probability`. With several classes there is `prediction`, too,
            and `probability` is that of the predicted class.
    """

    facts: CaseFacts
    urls: dict[str, str]


def show_case(image: np.ndarray, target: np.ndarray, pred: np.ndarray, probability: np.ndarray) -> ShownCase:
    """Determine the properties of a case and encode its maps as images.

    Args:
        image: uint8 (h, w, 3).
        target, pred: uint8 (h, w), 1 is lesion, or class indices (255 in the target is not counted).
        probability: uint8 (h, w) in 255ths, of lesion; or (k, h, w), of each class.
    """
    urls = {"image": images.color_image(image)}
    if probability.ndim == 2:
        urls |= {"target": images.mask(target > 0), "probability": images.gray_map(probability)}
    else:
        urls |= {"target": images.label_map(target), "prediction": images.label_map(pred)}
        urls["probability"] = images.gray_map(probability.max(axis=0))
    return ShownCase(case_facts(image, target), urls)


def gallery_data(
    cases: Sequence[ShownCase],
    scores: Scores,
    groupings: Sequence[Grouping],
    *,
    seen: Sequence[str],
    size: tuple[int, int],
    threshold: float,
) -> dict:
    """Collect all cases as plain types for JSON.

    Args:
        cases: The images of `scores`, in its order.
        scores: Their counts and distances.
        groupings: Groups that can be shown alone.
        seen: Ids of the images that are in training or have a near-duplicate there.
        size: (h, w) of the maps before they were encoded.
        threshold: Least probability of lesion.
    """
    num_scored = scores.counts.shape[1]
    metrics = scores.per_image()
    columns = {name: metrics[name].tolist() for name in ("dice", "jaccard")}
    if scores.distances is not None and "hd95" in scores.names:
        hd95 = scores.distances[..., scores.names.index("hd95")].nanmean(dim=1)
        columns["hd95"] = _without_nan(hd95.tolist())
    rows = [
        {
            "id": image_id,
            **{name: values[row] for name, values in columns.items()},
            "lesionFraction": case.facts.lesion_fraction,
            **case.urls,
        }
        for row, (image_id, case) in enumerate(zip(scores.ids, cases, strict=True))
    ]
    filters = [
        {"title": grouping.title, "label": group.label, "rows": list(group.rows)}
        for grouping in groupings
        for group in grouping.groups
    ]
    seen_ids = set(seen)
    seen_rows = [row for row, image_id in enumerate(scores.ids) if image_id in seen_ids]
    if seen_rows:
        filters.append({"title": "training", "label": "seen, or a near-duplicate", "rows": seen_rows})
    return {
        "size": list(images.shown_size(size)),
        "threshold": threshold * 255,
        "numClasses": num_scored + 1 if num_scored > 1 else 1,
        "colors": {"target": TARGET, "prediction": PREDICTION, "added": VERMILLION},
        "classes": class_palette(),
        "ramp": _ramp(),
        "cases": rows,
        "filters": filters,
    }


def gates_data(maps: GateMaps) -> dict:
    """Collect gate maps as plain types for JSON: an image per case, block and head, scaled to the block's maximum."""
    return {
        "gate": maps.gate,
        "patterns": list(maps.patterns),
        "blocks": [_block_title(block.block) for block in maps.blocks],
        "images": [
            {"id": image_id, "blocks": [_block_data(block, row) for block in maps.blocks]}
            for row, image_id in enumerate(maps.ids)
        ],
    }


def _block_data(block: BlockGates, row: int) -> dict:
    gate = block.gate[row]
    highest = float(gate.max())
    levels = np.rint(gate * (255 / highest)) if highest > 0 else np.zeros_like(gate)
    return {
        "highest": highest,
        "maps": [images.gray_map(level.astype(np.uint8)) for level in levels],
        "means": gate.mean(axis=(1, 2)).tolist(),
        "closed": block.closed[row].tolist(),
        "routeFractions": [_without_nan(head) for head in block.route_share[row].tolist()],
    }


def _without_nan(values: Sequence[float]) -> list[float | None]:
    # JSON has no NaN
    return [None if math.isnan(value) else value for value in values]


def _block_title(name: str) -> str:
    match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.blocks\.(\d+)", name)
    return f"{match[1]}, stage {int(match[2]) + 1}, block {int(match[3]) + 1}" if match else name


def _ramp() -> list[int]:
    """256 colors from dark to bright, uniform for color-blind readers too, as red, green, blue, red, …"""
    return colormaps["cividis"](np.arange(256), bytes=True)[:, :3].flatten().tolist()
