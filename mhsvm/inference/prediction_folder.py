"""A folder of predictions: masks, overlays, contours and areas of many images, written one by one and resumable.

settings.json        how they were made; a run with others does not write here
predictions.jsonl    a line for every image that is done, written after its files
areas.csv            the same as a table, written at the end
masks/, overlays/    of each image, below the path that it has in its source
probabilities/, contours/    where asked for
"""

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image, ImageDraw

from mhsvm.files import replace_when_complete
from mhsvm.inference.contours import Polygon
from mhsvm.inference.overlay import BLACK, PREDICTION, class_colour, class_palette, draw_prediction

COORDINATES = "x to the right and y down in pixels of the image, from the upper left corner of its frame"
_AREAS = ("pixels", "share", "regions")


class PredictionFolder:
    """Where predictions go, and which of them are done.

    Args:
        path: A new or empty folder, or one that was begun with the same settings.
        settings: All that the predictions depend on, as plain types.
    Raises:
        FileExistsError: The folder holds something else.
        ValueError: It was begun with other settings; they are named.
    """

    def __init__(self, path: Path, settings: Mapping) -> None:
        self.path = path
        self._settings, self._records = path / "settings.json", path / "predictions.jsonl"
        # as it comes back from the file
        settings = json.loads(json.dumps(settings))
        if self._settings.is_file():
            _check_settings(path, json.loads(self._settings.read_text(encoding="utf-8")), settings)
        elif path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise FileExistsError(f"{path} exists and is not empty: choose another one with `folder`")
        else:
            with replace_when_complete(self._settings) as partial:
                partial.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        self.done = {record["image"]: record for record in self._read_records()}
        # written again without the unfinished line of a killed process
        with replace_when_complete(self._records) as partial:
            partial.write_text("".join(_line(record) for record in self.done.values()), encoding="utf-8")

    def is_done(self, image: str, *, name: PurePath, source: Path) -> bool:
        """Whether an image was predicted, and its file has not changed since.

        Raises:
            ValueError: Its results have another name: images of its stem have come or gone.
        """
        record = self.done.get(image)
        if record is None:
            return False
        if record["name"] != str(name):
            raise ValueError(
                f"{self.path} holds the results of {image} as {record['name']}, but among the images of now they are "
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
            name: Its files' path below masks/ and so on, without an ending.
            source: Its own file.
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
        """Note that an image is done."""
        with self._records.open("a", encoding="utf-8") as file:
            file.write(_line(record))
        self.done[record["image"]] = record

    def write_table(self, images: Sequence[str]) -> None:
        """Write areas.csv of these images, those that are done, in this order."""
        with replace_when_complete(self.path / "areas.csv") as partial, partial.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["image", "width", "height", "class", *_AREAS])
            for record in (self.done[image] for image in images if image in self.done):
                for label, area in record["areas"].items():
                    size = record["width"], record["height"]
                    writer.writerow([record["image"], *size, label, *(area[column] for column in _AREAS)])

    def _file(self, kind: str, name: PurePath, ending: str) -> Path:
        path = self.path / kind / f"{name}{ending}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def _write_probability(self, probability: np.ndarray, name: PurePath) -> None:
        levels = np.rint(probability * 255).astype(np.uint8)
        if levels.ndim == 2:
            Image.fromarray(levels).save(self._file("probabilities", name, ".png"))
            return
        for label, of_class in enumerate(levels):
            Image.fromarray(of_class).save(self._file("probabilities", name, f".class-{label}.png"))

    def _write_contours(
        self, content: dict, contours: Mapping[int, Sequence[Polygon]], name: PurePath, num_classes: int
    ) -> None:
        self._file("contours", name, ".json").write_text(json.dumps(content) + "\n", encoding="utf-8")
        drawn = _draw_contours(contours, (content["width"], content["height"]), num_classes)
        drawn.save(self._file("contours", name, ".png"))

    def _read_records(self) -> list[dict]:
        if not self._records.is_file():
            return []
        lines = self._records.read_text(encoding="utf-8").splitlines(keepends=True)
        return [json.loads(line) for line in lines if line.endswith("\n")]


def _check_settings(path: Path, begun: Mapping, given: Mapping) -> None:
    differing = [key for key in {**begun, **given} if begun.get(key) != given.get(key)]
    if differing:
        changes = "; ".join(f"{key} {begun.get(key)}, not {given.get(key)}" for key in differing)
        raise ValueError(
            f"{path} was begun with other settings: {changes}. Give the same to go on, or another folder with `folder`"
        )


def _state(source: Path) -> list[int]:
    """Size in bytes and time of the last change: by them a changed file is noticed."""
    status = source.stat()
    return [status.st_size, status.st_mtime_ns]


def _line(record: Mapping) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


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
    """The contours alone, on a transparent image of this (width, height)."""
    drawn = Image.new("RGBA", size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(drawn)
    width = max(1, round(max(size) / 300))
    for border in (2, 0):
        for label, polygons in contours.items():
            colour = BLACK if border else PREDICTION if num_classes == 1 else class_colour(label)
            for line in (line for polygon in polygons for line in (polygon.outer, *polygon.holes)):
                # Pillow counts from the center of the first pixel
                points = [(x, y) for x, y in (line - 0.5).tolist()]
                draw.line(points, fill=(*colour, 255), width=width + border, joint="curve")
    return drawn
