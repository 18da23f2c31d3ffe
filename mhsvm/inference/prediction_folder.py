"""A folder of predictions: masks, overlays, contours and areas of many images, written one by one and resumable.

settings.json        settings of the predictions; a run with other settings does not write here
predictions.jsonl    a line for every image that is done, written after its files
areas.csv            the same as a table, written at the end
masks/, overlays/    a file per image, under its relative path in the source
probabilities/, contours/    if requested

A file appears under its name when it is complete, and a record counts only while its files are there and complete.
"""

import io
import json
import os
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageDraw

from mhsvm.inference.contours import Polygon
from mhsvm.inference.overlay import BLACK, PREDICTION, class_color, class_palette, draw_prediction
from mhsvm.prepare.archive import SourceFile
from mhsvm.text_file import append_json_line, encode, read_json, write_json, write_json_lines, write_table

COORDINATES = "x to the right and y down in pixels of the image, from the upper left corner of its frame"
_AREAS = ("pixels", "share", "regions")
# Bytes at the end of complete files.
_ENDS = {".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9", ".json": b"}\n"}


class PredictionFolder:
    """Writes predictions, and knows which images are done.

    Args:
        path: A new or empty folder, or one that was begun with the same settings.
        settings: All settings that the predictions depend on, as plain types.
    Raises:
        FileExistsError: The folder holds something else.
        ValueError: It was begun with other settings; they are named.
    Attributes:
        done: The record of each image that is done.
        num_damaged: Number of damaged records, whose images are done again.
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
        records, self.num_damaged = self._read_records()
        self.done = {record["image"]: record for record in records}
        # written again without the incomplete line of a killed process
        write_json_lines(self._records, self.done.values())

    def is_done(self, image: str, *, name: PurePath, file: SourceFile) -> bool:
        """Whether an image was predicted, its file has not changed since, and its results are complete.

        Args:
            image: Its name in the records.
            name: Path of its results, as for `write`.
            file: Its file.
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
        # older records do not list their results
        results = record.get("results", [f"masks/{name}.png", f"overlays/{name}.jpg"])
        return record["file"] == file.state() and all(_is_complete(self.path / result) for result in results)

    def write(
        self,
        image: str,
        *,
        name: PurePath,
        state: Sequence[int],
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
            state: Numbers that change with the file of the image, see `SourceFile.state`.
            pixels: uint8 (h, w, 3).
            mask: uint8 (h, w), 1 is lesion, or class indices.
            num_classes: 1, or k.
            areas: For each class, by its number: pixels, fraction of the image, regions.
            probability: (h, w) of lesion, or (k, h, w), to be written.
            contours: Contours of each class, to be written.
        Returns:
            The record for `add`.
        """
        height, width = mask.shape
        drawn = Image.fromarray(draw_prediction(pixels, mask, num_classes=num_classes))
        files = {
            f"masks/{name}.png": encode_image(_mask_image(mask, num_classes), "PNG"),
            f"overlays/{name}.jpg": encode_image(drawn, "JPEG", quality=90),
        }
        if probability is not None:
            files |= _probability_files(probability, name)
        if contours is not None:
            content = {"image": image, "width": width, "height": height, "coordinates": COORDINATES}
            files |= _contour_files(content, contours, name, num_classes)
        for path, written in files.items():
            write_complete(self.path / path, written)
        return {
            "image": image,
            "name": str(name),
            "file": list(state),
            "results": list(files),
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

    def _read_records(self) -> tuple[list[dict], int]:
        """Records, and the number of damaged ones; the incomplete line of a killed process is none."""
        if not self._records.is_file():
            return [], 0
        *lines, last = self._records.read_bytes().split(b"\n")
        records = [record for record in map(_parse_record, lines) if record is not None]
        ended = _parse_record(last)
        return records + ([] if ended is None else [ended]), len(lines) - len(records)


def encode_image(image: Image.Image, format: str, **options: int) -> bytes:
    """The content of an image file."""
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def write_complete(path: Path, content: bytes) -> None:
    """Write a file under a temporary name and rename it, but do not wait for the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # short, because the name of the file may have the greatest length
    partial = path.with_name(f".{zlib.crc32(encode(path.name)):08x}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def _is_complete(path: Path) -> bool:
    """Whether a file is there and has its end: it may be empty or short after a full disk or a power cut."""
    end = _ENDS.get(path.suffix)
    if end is None or not path.is_file() or path.stat().st_size < len(end):
        return False
    with path.open("rb") as file:
        file.seek(-len(end), os.SEEK_END)
        return file.read() == end


def _parse_record(line: bytes) -> dict | None:
    """A record, or None if its line is damaged."""
    try:
        record = json.loads(line)
        _check_record(record)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return None
    return record


def _check_record(record: dict) -> None:
    texts = [record["image"], record["name"], *record.get("results", [])]
    numbers = [record["width"], record["height"], *record["file"]]
    numbers += [area[column] for area in record["areas"].values() for column in _AREAS]
    inside = [not PurePath(text).is_absolute() and ".." not in PurePath(text).parts for text in texts]
    if not all(inside) or not all(isinstance(number, (int, float)) for number in numbers):
        raise ValueError("a record has paths in the folder, and numbers")


def _check_settings(path: Path, begun: Mapping, given: Mapping) -> None:
    differing = [key for key in {**begun, **given} if begun.get(key) != given.get(key)]
    if differing:
        changes = "; ".join(f"{key} {begun.get(key)}, not {given.get(key)}" for key in differing)
        raise ValueError(
            f"{path} was begun with other settings: {changes}. Give the same to go on, or another folder with `folder`"
        )


def _mask_image(mask: np.ndarray, num_classes: int) -> Image.Image:
    if num_classes == 1:
        return Image.fromarray(mask * np.uint8(255))
    indexed = Image.fromarray(mask)
    indexed.putpalette(class_palette())
    return indexed


def _probability_files(probability: np.ndarray, name: PurePath) -> dict[str, bytes]:
    levels = np.rint(probability * 255).astype(np.uint8)
    maps = {"": levels} if levels.ndim == 2 else {f".class-{label}": each for label, each in enumerate(levels)}
    return {
        f"probabilities/{name}{part}.png": encode_image(Image.fromarray(each), "PNG") for part, each in maps.items()
    }


def _contour_files(
    content: dict, contours: Mapping[int, Sequence[Polygon]], name: PurePath, num_classes: int
) -> dict[str, bytes]:
    drawn = _draw_contours(contours, (content["width"], content["height"]), num_classes)
    text = json.dumps({**content, "regions": _regions(contours)}, ensure_ascii=False) + "\n"
    return {f"contours/{name}.json": encode(text), f"contours/{name}.png": encode_image(drawn, "PNG")}


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
