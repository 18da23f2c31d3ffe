"""Images of the best, median and worst cases of a test.

Shape letters: h w image size in pixels, k classes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mhsvm.inference.overlay import PREDICTION, TARGET, Color, class_color, draw_boundaries, tint_classes
from mhsvm.metrics.counts import IGNORE_INDEX

_CASES_A_GROUP = 4
# Bytes of an id in the name of a file, which can have 255 in all.
_LONGEST_NAME = 150
_GROUPS = ("best", "median", "worst")
_PANEL_SIDE = 448
_MARGIN, _LINE = 8, 20
_INK, _PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Case:
    """One test image with its target and its prediction.

    Attributes:
        id: Id of the image.
        group: "best", "median" or "worst".
        rank: Rank by Dice among all images; 1 is the highest.
        dice: Dice of the image; the mean over several classes.
        image: uint8 (h, w, 3).
        target, pred: uint8 (h, w), 1 is lesion, or class indices; 255 in the target is not counted.
        probability: uint8 (h, w) of lesion, or (k, h, w) of each class; 255 is probability 1.
    """

    id: str
    group: str
    rank: int
    dice: float
    image: np.ndarray
    target: np.ndarray
    pred: np.ndarray
    probability: np.ndarray

    @property
    def file_name(self) -> str:
        """Group, rank, start of the id and Dice; characters other than letters, digits, "-" and "." become "_"."""
        name = re.sub(r"[^\w.-]+", "_", self.id).encode()[:_LONGEST_NAME].decode(errors="ignore")
        return f"{self.group}-{self.rank:04d}-{name}-dice-{self.dice:.4f}.png"


def choose_cases(dice: Sequence[float]) -> list[tuple[str, int, int]]:
    """Choose up to four best, four median and four worst cases, none of them twice.

    Args:
        dice: Dice of each image.
    Returns:
        Group, rank from 1 and row of each case; cases of equal Dice are ranked by row.
    """
    ranking = np.argsort(-np.asarray(dice), kind="stable")
    places = np.arange(len(ranking))
    if len(places) <= len(_GROUPS) * _CASES_A_GROUP:
        chosen = np.array_split(places, len(_GROUPS))
    else:
        middle = (len(places) - _CASES_A_GROUP) // 2
        chosen = [places[:_CASES_A_GROUP], places[middle : middle + _CASES_A_GROUP], places[-_CASES_A_GROUP:]]
    return [
        (group, int(place) + 1, int(ranking[place]))
        for group, places_of_group in zip(_GROUPS, chosen, strict=True)
        for place in places_of_group
    ]


def write_case_images(folder: Path, cases: Sequence[Case]) -> None:
    """Write an image of each case, and `overview.png` with all of them."""
    folder.mkdir()
    for case in cases:
        draw_case(case).save(folder / case.file_name)
    _overview(cases).save(folder / "overview.png")


def draw_case(case: Case) -> Image.Image:
    """Make a sheet with the image, the masks over the image and the probability, a title and a legend."""
    panels = [("image", _enlarge(case.image)), *_mask_panels(case), _probability_panel(case)]
    width, height = panels[0][1].width, panels[0][1].height
    sheet = Image.new(
        "RGB",
        (len(panels) * (width + _MARGIN) + _MARGIN, 3 * _LINE + height + 2 * _MARGIN),
        _PAPER,
    )
    draw = ImageDraw.Draw(sheet)
    _write(draw, (_MARGIN, _MARGIN), f"{case.id}    {case.group}, rank {case.rank}    Dice {case.dice:.4f}", size=15)
    for place, (title, panel) in enumerate(panels):
        left = _MARGIN + place * (width + _MARGIN)
        _write(draw, (left, _MARGIN + _LINE), title)
        sheet.paste(panel, (left, _MARGIN + 2 * _LINE))
    _draw_legend(draw, _MARGIN + (width + _MARGIN), 2 * _MARGIN + 2 * _LINE + height, _legend([case]))
    _draw_scale(sheet, sheet.width - _MARGIN - width, 2 * _MARGIN + 2 * _LINE + height)
    return sheet


def _mask_panels(case: Case) -> list[tuple[str, Image.Image]]:
    scale = _scale(case.target)
    image = np.array(_enlarge(case.image))
    target, pred = (labels.repeat(scale, axis=0).repeat(scale, axis=1) for labels in (case.target, case.pred))
    if case.probability.ndim == 2:
        # a thin line over a broad one: both are visible where they coincide
        drawn = draw_boundaries(image, [(target, TARGET, 5), (pred, PREDICTION, 2)])
        return [("target and prediction", Image.fromarray(drawn))]
    named = (("target", target), ("prediction", pred))
    return [(title, Image.fromarray(tint_classes(image, labels, 3))) for title, labels in named]


def _probability_panel(case: Case) -> tuple[str, Image.Image]:
    if case.probability.ndim == 2:
        return "probability of lesion", _enlarge(case.probability)
    return "probability of the predicted class", _enlarge(case.probability.max(axis=0))


def _legend(cases: Sequence[Case]) -> list[tuple[str, Color]]:
    if cases[0].probability.ndim == 2:
        return [("target", TARGET), ("prediction", PREDICTION)]
    present = {label for case in cases for labels in (case.target, case.pred) for label in np.unique(labels).tolist()}
    return [
        ("not counted" if label == IGNORE_INDEX else f"class {label}", class_color(label))
        for label in sorted(present - {0})
    ]


def _tile(case: Case) -> Image.Image:
    """The masks over the image at half the size, with a caption."""
    panels = [panel.reduce(2) for _, panel in _mask_panels(case)]
    width, height = panels[0].size
    tile = Image.new("RGB", (len(panels) * width, height + _LINE), _PAPER)
    _write(ImageDraw.Draw(tile), (0, 2), f"Dice {case.dice:.4f}  {case.id}")
    for place, panel in enumerate(panels):
        tile.paste(panel, (place * width, _LINE))
    return tile


def _overview(cases: Sequence[Case]) -> Image.Image:
    """A row of tiles for each group."""
    rows = {group: [_tile(case) for case in cases if case.group == group] for group in _GROUPS}
    width, height = rows[cases[0].group][0].size
    row_height = height + _LINE + _MARGIN
    num_columns, num_rows = max(map(len, rows.values())), sum(map(bool, rows.values()))
    sheet = Image.new(
        "RGB", (_MARGIN + num_columns * (width + _MARGIN), 2 * _MARGIN + num_rows * row_height + _LINE), _PAPER
    )
    draw = ImageDraw.Draw(sheet)
    _draw_legend(draw, _MARGIN, _MARGIN + num_rows * row_height, _legend(cases))
    # a test of a few images fills the first groups only
    for line, group in enumerate(_GROUPS[:num_rows]):
        top = _MARGIN + line * row_height
        _write(draw, (_MARGIN, top), f"{group}, by Dice", size=15)
        for column, tile in enumerate(rows[group]):
            sheet.paste(tile, (_MARGIN + column * (width + _MARGIN), top + _LINE))
    return sheet


def _scale(array: np.ndarray) -> int:
    return max(1, round(_PANEL_SIDE / max(array.shape[:2])))


def _enlarge(array: np.ndarray) -> Image.Image:
    scale = _scale(array)
    image = Image.fromarray(array).convert("RGB")
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.BILINEAR)


def _write(draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, *, size: int = 13) -> None:
    draw.text(place, text, fill=_INK, font=ImageFont.load_default(size))


def _draw_legend(draw: ImageDraw.ImageDraw, left: int, top: int, entries: Sequence[tuple[str, Color]]) -> None:
    for name, color in entries:
        draw.rectangle((left, top + 3, left + 12, top + 15), fill=color, outline=_INK)
        _write(draw, (left + 17, top), name)
        left += 17 + int(draw.textlength(name, font=ImageFont.load_default(13))) + 2 * _MARGIN


def _draw_scale(sheet: Image.Image, left: int, top: int) -> None:
    """Draw the gray scale of the probability, from 0 to 1."""
    draw = ImageDraw.Draw(sheet)
    _write(draw, (left, top), "0")
    ramp = np.broadcast_to(np.linspace(0, 255, 100).astype(np.uint8), (12, 100))
    sheet.paste(Image.fromarray(np.ascontiguousarray(ramp)).convert("RGB"), (left + 14, top + 3))
    draw.rectangle((left + 13, top + 2, left + 114, top + 15), outline=_INK)
    _write(draw, (left + 120, top), "1")
