"""What a page is given to draw: the pictures of each case, once, and what gates did on some of them.

Shape letters: h w the map in pixels, k classes.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps

from mhsvm.inference.overlay import PREDICTION, TRUTH, VERMILLION, class_palette
from mhsvm.metrics import Scores, per_image
from mhsvm.report import pictures
from mhsvm.report.groups import CaseFacts, Grouping, look_at
from mhsvm.store import BlockGates, GateMaps


@dataclass(frozen=True)
class ShownCase:
    """A case as a page shows it.

    Attributes:
        facts: What it is grouped by.
        pictures: Name -> data URL: `image`, `truth`, `probability`; of several classes also `prediction`, while
            `probability` is that of the predicted class.
    """

    facts: CaseFacts
    pictures: dict[str, str]


def show_case(image: np.ndarray, truth: np.ndarray, pred: np.ndarray, probability: np.ndarray) -> ShownCase:
    """Look at a case and turn its maps into pictures.

    Args:
        image: uint8 (h, w, 3).
        truth, pred: uint8 (h, w), 1 is lesion, or class indices (255 in the truth is not counted).
        probability: uint8 (h, w) in 255ths, of lesion; or (k, h, w), of each class.
    """
    shown = {"image": pictures.photograph(image)}
    if probability.ndim == 2:
        shown |= {"truth": pictures.mask(truth > 0), "probability": pictures.grey_map(probability)}
    else:
        shown |= {"truth": pictures.label_map(truth), "prediction": pictures.label_map(pred)}
        shown["probability"] = pictures.grey_map(probability.max(axis=0))
    return ShownCase(look_at(image, truth), shown)


def gallery_data(
    cases: Sequence[ShownCase],
    scores: Scores,
    groupings: Sequence[Grouping],
    *,
    seen: Sequence[str],
    size: tuple[int, int],
    threshold: float,
) -> dict:
    """All cases as JSON takes them.

    Args:
        cases: Of the images of `scores`, in its order.
        groupings: Whose groups can be looked at alone.
        seen: Ids of the images that training has seen, or near-duplicates of them.
        size: (h, w) of the maps that the pictures were made of.
        threshold: Probability from which a pixel is lesion.
    """
    num_scored = scores.counts.shape[1]
    figures = per_image(scores.counts)
    columns = {name: figures[name].mean(dim=1).tolist() for name in ("dice", "jaccard")}
    if scores.distances is not None and "hd95" in scores.names:
        hd95 = scores.distances[..., scores.names.index("hd95")].nanmean(dim=1)
        columns["hd95"] = _without_nan(hd95.tolist())
    rows = [
        {
            "id": image_id,
            **{name: values[row] for name, values in columns.items()},
            "share": case.facts.lesion_share,
            **case.pictures,
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
        "size": list(pictures.shown_size(size)),
        "threshold": threshold * 255,
        "numClasses": num_scored + 1 if num_scored > 1 else 1,
        "colours": {"truth": TRUTH, "prediction": PREDICTION, "added": VERMILLION},
        "classes": class_palette(),
        "ramp": _ramp(),
        "cases": rows,
        "filters": filters,
    }


def gates_data(maps: GateMaps) -> dict:
    """Gate maps as JSON takes them: of each image and block a picture a head, scaled to the block's largest value."""
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
        "maps": [pictures.grey_map(level.astype(np.uint8)) for level in levels],
        "means": gate.mean(axis=(1, 2)).tolist(),
        "closed": block.closed[row].tolist(),
        "shares": [_without_nan(head) for head in block.route_share[row].tolist()],
    }


def _without_nan(values: Sequence[float]) -> list[float | None]:
    # JSON has no word for NaN
    return [None if math.isnan(value) else value for value in values]


def _block_title(name: str) -> str:
    match = re.fullmatch(r"(encoder|decoder)\.(\d+)\.blocks\.(\d+)", name)
    return f"{match[1]}, stage {int(match[2]) + 1}, block {int(match[3]) + 1}" if match else name


def _ramp() -> list[int]:
    """256 colours from dark to bright, evenly also for colour-blind readers: red, green, blue, red, …"""
    return colormaps["cividis"](np.arange(256), bytes=True)[:, :3].flatten().tolist()
