"""A folder of predictions: masks, overlays, contours and areas of many images, written one by one and resumable.

settings.json        settings of the predictions; a run with other settings does not write here
predictions.jsonl    a line for every image that is done, written after its files
areas.csv            the same as a table, written at the end
masks/, overlays/    a file per image, under its relative path in the source
probabilities/, contours/    if requested
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageDraw

from mhsvm.inference.contours import Polygon
from mhsvm.inference.overlay import BLACK, PREDICTION, class_color, class_palette, draw_prediction
from mhsvm.text_file import (
    append_json_line,
    encode,
    read_json,
    read_json_lines,
    write_json,
    write_json_lines,
    write_table,
)

COORDINATES = "x to the right and y down in pixels of the image, from the upper left corner of its frame"
_AREAS = ("pixels", "share", "regions")


class PredictionFolder:
    """Writes predictions, and knows which images are done.

    Args:
        path: A new or empty folder, or one that was begun with the same settings.
        settings: All settings that the predictions depend on, as plain types.
    Raises:
        FileExistsError: The folder holds something else.
        ValueError: It was begun with other settings; they are named.
    """

    def __init__(self, path: Path, settings: Mapping) -> None:
        self.path = path
        self._settings, self._records = path / "settings.json", path / "predictions.jsonl"
        # as read back from the file
        settings = json.loads(json.dumps(settings))
        if self._settings.is_file():
            _check_settings(path, read_json(self._settings), settings)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(f"{path} exists and is not empty: choose another one with `folder`")
        else:
            write_json(self._settings, settings, allow_nan=True)
        records = read_json_lines(self._records) if self._records.is_file() else []
        self.done = {record["image"]: record for record in records}
        # written again without the incomplete line of a killed process
        write_json_lines(self._records, self.done.values())

    def is_done(self, image: str, *, name: PurePath, source: Path) -> bool:
        """Whether an image was predicted, and its file has not changed since.

        Raises:
            ValueError: Its results have another name: images with its stem were added or removed.
        """
        record = self.done.get(image)
        if record is None:
            return False
        if record["name"] != str(name):
            raise ValueError(
                f"{self.path} holds the results of {image} as {record['name']}, but with the present images they are "
                f"{name}: choose another one with `folder`"
            )
        return record["file"] == _state(source)

    def write(
        self,
        image: str,
        *,
        name: PurePath,
        source: Path,
        pixels: np.ndarray,
        mask: np.ndarray,
        num_classes: int,
        areas: Mapping[str, Mapping],
        probability: np.ndarray | None = None,
        contours: Mapping[int, Sequence[Polygon]] | None = None,
    ) -> dict:
        """Write the files of one image; several threads may write several images.

        Args:
            image: Its name in the records.
            name: Path of its files in masks/ and the other folders, without an ending.
            source: File of the image.
            pixels: uint8 (h, w, 3).
            mask: uint8 (h, w), 1 is lesion, or class indices.
            num_classes: 1, or k.
            areas: For each class, by its number: pixels, fraction of the image, regions.
            probability: (h, w) of lesion, or (k, h, w), to be written.
            contours: Contours of each class, to be written.
        Returns:
            The record for `add`.
        """
        state = _state(source)
        _mask_image(mask, num_classes).save(self._file("masks", name, ".png"))
        drawn = draw_prediction(pixels, mask, num_classes=num_classes)
        Image.fromarray(drawn).save(self._file("overlays", name, ".jpg"), quality=90)
        if probability is not None:
            self._write_probability(probability, name)
        height, width = mask.shape
        if contours is not None:
            content = {"image": image, "width": width, "height": height, "coordinates": COORDINATES}
            self._write_contours({**content, "regions": _regions(contours)}, contours, name, num_classes)
        return {
            "image": image,
            "name": str(name),
            "file": state,
            "width": width,
            "height": height,
            "areas": areas,
        }

    def add(self, record: dict) -> None:
        """Record that an image is done."""
        append_json_line(self._records, record)
        self.done[record["image"]] = record

    def write_table(self, images: Sequence[str]) -> None:
        """Write areas.csv for those of these images that are done, in this order."""
        rows = [
            [record["image"], record["width"], record["height"], label, *(area[column] for column in _AREAS)]
            for record in (self.done[image] for image in images if image in self.done)
            for label, area in record["areas"].items()
        ]
        write_table(self.path / "areas.csv", ["image", "width", "height", "class", *_AREAS], rows)

    def _file(self, kind: str, name: PurePath, ending: str) -> Path:
        path = self.path / kind / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_probability(self, probability: np.ndarray, name: PurePath) -> None:
        levels = np.rint(probability * 255).astype(np.uint8)
        if levels.ndim == 2:
            Image.fromarray(levels).save(self._file("probabilities", name, ".png"))
            return
        for label, class_levels in enumerate(levels):
            Image.fromarray(class_levels).save(self._file("probabilities", name, f".class-{label}.png"))

    def _write_contours(
        self, content: dict, contours: Mapping[int, Sequence[Polygon]], name: PurePath, num_classes: int
    ) -> None:
        self._file("contours", name, ".json").write_bytes(encode(json.dumps(content, ensure_ascii=False) + "\n"))
        drawn = _draw_contours(contours, (content["width"], content["height"]), num_classes)
        drawn.save(self._file("contours", name, ".png"))


def _check_settings(path: Path, begun: Mapping, given: Mapping) -> None:
    differing = [key for key in {**begun, **given} if begun.get(key) != given.get(key)]
    if differing:
        changes = "; ".join(f"{key} {begun.get(key)}, not {given.get(key)}" for key in differing)
        raise ValueError(
            f"{path} was begun with other settings: {changes}. Give the same to go on, or another folder with `folder`"
        )


def _state(source: Path) -> list[int]:
    """Size in bytes and time of the last change, to detect changed files."""
    status = source.stat()
    return [status.st_size, status.st_mtime_ns]


def _mask_image(mask: np.ndarray, num_classes: int) -> Image.Image:
    if num_classes == 1:
        return Image.fromarray(mask * np.uint8(255))
    indexed = Image.fromarray(mask)
    indexed.putpalette(class_palette())
    return indexed


def _regions(contours: Mapping[int, Sequence[Polygon]]) -> list[dict]:
    return [
        {
            "class": label,
            "area": round(polygon.area, 2),
            "outer": polygon.outer.round(2).tolist(),
            "holes": [hole.round(2).tolist() for hole in polygon.holes],
        }
        for label, polygons in contours.items()
        for polygon in polygons
    ]


def _draw_contours(contours: Mapping[int, Sequence[Polygon]], size: tuple[int, int], num_classes: int) -> Image.Image:
    """The contours on a transparent image of this (width, height)."""
    drawn = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(drawn)
    width = max(1, round(max(size) / 300))
    for border in (2, 0):
        for label, polygons in contours.items():
            color = BLACK if border else PREDICTION if num_classes == 1 else class_color(label)
            for line in (line for polygon in polygons for line in (polygon.outer, *polygon.holes)):
                # Pillow counts from the center of the first pixel
                points = [(x, y) for x, y in (line - 0.5).tolist()]
                draw.line(points, fill=(*color, 255), width=width + border, joint="curve")
    return drawn
