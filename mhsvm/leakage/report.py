"""Reports of leaks: lines, a part of a summary, a table, and contact sheets for inspection."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from mhsvm.leakage.leaks import SAME_ID, SAME_PIXELS, Leak
from mhsvm.leakage.seen_images import Leakage
from mhsvm.metrics import summarize
from mhsvm.store import PreparedSet
from mhsvm.store.mask_agreement import mask_dice
from mhsvm.text_file import write_table

_COLUMNS, _ROWS = 4, 8
_SIDE, _MARGIN, _LINE = 168, 12, 16
# Pairs that are printed one by one; the table has all.
_NAMED = 20
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


def leakage_lines(leakage: Leakage) -> list[str]:
    """Describe the test images that a checkpoint has seen in training."""
    lines = [] if leakage.unknown is None else [f"leakage: {leakage.unknown}"]
    counts = leakage.counts()
    if counts:
        found = ", ".join(f"{kind} {count}" for kind, count in counts.items())
        lines.append(f"leakage: test images with a counterpart in training, by kind: {found}")
        # for equal ids the count is enough
        pairs = [f"{leak.id_b} (like {leak.id_a})" for leak in leakage.leaks if leak.id_a != leak.id_b]
        lines += [f"leakage: {pair}" for pair in pairs[:_NAMED]]
        if len(pairs) > _NAMED:
            lines.append(f"leakage: … and {len(pairs) - _NAMED} more pairs")
    elif leakage.unknown is None:
        lines.append("leakage: no test image is in training, or has a near-duplicate there")
    return lines


def leakage_content(leakage: Leakage, *, every: Tensor, unseen: Tensor, dropped: bool) -> dict:
    """Collect the part of a summary on leakage.

    Args:
        leakage: Leakage from the training images to all test images.
        every: Counts of all test images, (n, c, 4), see `mhsvm.metrics.class_counts`.
        unseen: Counts of the test images that training has not seen.
        dropped: Whether the metrics of the test itself are those of the unseen images alone.
    """
    return {
        "unknown": leakage.unknown,
        "counts": leakage.counts(),
        "seen": sorted(leakage.seen),
        "dropped": dropped,
        "num_images": {"every": len(every), "unseen": len(unseen)},
        "metrics": {"every": _summarize(every), "unseen": _summarize(unseen) if len(unseen) else None},
    }


def _summarize(counts: Tensor) -> dict:
    # JSON has no NaN
    return {name: None if math.isnan(value) else value for name, value in summarize(counts).items()}


def leakage_metrics(content: dict) -> str:
    """Format the Dice of all and of unseen images as a line, from `leakage_content`."""
    every, unseen = content["metrics"]["every"], content["metrics"]["unseen"]
    dice = ["-" if part is None or part["dsc"] is None else f"{part['dsc']:.4f}" for part in (every, unseen)]
    without = "none is left" if unseen is None else f"{dice[1]} of {content['num_images']['unseen']}"
    return (
        f"dsc, pooled: {dice[0]} of all {content['num_images']['every']} test images; without those that "
        f"are in training or have a near-duplicate there: {without}"
    )


def mask_lines(leaks: Sequence[Leak], first: PreparedSet, second: PreparedSet) -> list[str]:
    """Describe images of equal pixels that have different masks, by the Dice of these.

    Args:
        leaks: Pairs of an image of the first and one of the second set.
        first, second: The sets; they may be the same.
    """
    if first.size != second.size or first.num_classes != second.num_classes:
        return []
    rows_of = [{image_id: row for row, image_id in enumerate(each.ids)} for each in (first, second)]
    found = []
    for leak in leaks:
        if leak.kind in (SAME_PIXELS, SAME_ID) and leak.score == 1:
            (one,), (other,) = first.masks([rows_of[0][leak.id_a]]), second.masks([rows_of[1][leak.id_b]])
            if not np.array_equal(one, other):
                dice = mask_dice(one, other, first.num_classes)
                found.append(f"{leak.id_a} and {leak.id_b} (Dice {dice:.3f})")
    shown = ", ".join(found[:_NAMED]) + (f", … and {len(found) - _NAMED} more" if len(found) > _NAMED else "")
    return [f"pairs of equal images with different masks: {len(found)}: {shown}"] if found else []


def write_leaks(folder: Path, leaks: Sequence[Leak], first: PreparedSet, second: PreparedSet, *, name: str) -> None:
    """Write NAME.csv, and NAME-1.png, … with the pairs to inspect, the most doubtful first.

    Pairs of equal pixels are not on the sheets.

    Args:
        folder: An existing folder.
        leaks: Pairs of an image of the first and one of the second set.
        first, second: The sets; they may be the same.
        name: Stem of the files' names.
    """
    subsets = [dict(zip(each.ids, each.subsets, strict=True)) for each in (first, second)]
    rows = []
    for leak in leaks:
        score = "" if leak.score is None else f"{leak.score:.4f}"
        rows.append([leak.kind, leak.id_a, leak.id_b, score, subsets[0][leak.id_a], subsets[1][leak.id_b]])
    write_table(folder / f"{name}.csv", ["kind", "id_a", "id_b", "score", "subset_a", "subset_b"], rows)
    doubtful = sorted((leak for leak in leaks if leak.score != 1), key=lambda leak: leak.score or 0)
    for place, start in enumerate(range(0, len(doubtful), _COLUMNS * _ROWS), start=1):
        sheet = _draw_sheet(doubtful[start : start + _COLUMNS * _ROWS], first, second)
        sheet.save(folder / f"{name}-{place}.png")


def _draw_sheet(leaks: Sequence[Leak], first: PreparedSet, second: PreparedSet) -> Image.Image:
    rows_of = [{image_id: row for row, image_id in enumerate(each.ids)} for each in (first, second)]
    width, height = 2 * _SIDE, _SIDE + 3 * _LINE
    columns, rows = min(len(leaks), _COLUMNS), -(-len(leaks) // _COLUMNS)
    sheet = Image.new("RGB", (columns * (width + _MARGIN) + _MARGIN, rows * (height + _MARGIN) + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, leak in enumerate(leaks):
        left = _MARGIN + place % _COLUMNS * (width + _MARGIN)
        top = _MARGIN + place // _COLUMNS * (height + _MARGIN)
        likeness = "unlike" if leak.score is None else f"{leak.score:.3f}"
        _write(draw, (left, top), f"{likeness}  {leak.kind}", width)
        for side, (prepared, image_id) in enumerate(((first, leak.id_a), (second, leak.id_b))):
            (pixels,) = prepared.images([rows_of[side][image_id]])
            sheet.paste(_thumbnail(pixels), (left + side * _SIDE, top + _LINE))
            # one line each, since ids may be long
            _write(
                draw, (left, top + _SIDE + (1 + side) * _LINE), f"{'left' if side == 0 else 'right'}: {image_id}", width
            )
    return sheet


def _thumbnail(pixels: np.ndarray) -> Image.Image:
    image = Image.fromarray(pixels)
    # leaves a gap of two pixels to the next image
    return image.resize((_SIDE - 2, _SIDE - 2), Image.Resampling.BILINEAR)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, width: int) -> None:
    font = ImageFont.load_default(12)
    while draw.textlength(text, font=font) > width:
        text = text[: -len(" …") - 1].rstrip() + " …" if text.endswith(" …") else text[:-1] + " …"
    draw.text(place, text, fill=_INK, font=font)
