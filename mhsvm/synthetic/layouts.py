"""Synthetic sets on disk, with the folders and file names of public sets."""

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image
from tqdm import tqdm

from mhsvm.store import SYNTHETIC_MARKER
from mhsvm.synthetic.raters import redraw_mask
from mhsvm.synthetic.sample import generate_sample
from mhsvm.text_file import write_lines, write_table, write_text

_MIN_SIDE = 32
_MARK = "The images and masks of this folder are synthetic: mhsvm synthesize has generated them.\n"


@dataclass(frozen=True)
class _Case:
    """Id of an image, and paths of image and mask."""

    id: str
    image: Path
    mask: Path


@dataclass(frozen=True)
class _Layout:
    """Files of a set.

    Args:
        cases: Function from the number of images to their ids and paths.
        add_extras: Function that adds the other files of an official archive to a complete set.
    """

    cases: Callable[[int], list[_Case]]
    add_extras: Callable[[Path, list[_Case]], None]


def list_layouts() -> tuple[str, ...]:
    """Names for `write_synthetic_set`."""
    return tuple(_LAYOUTS)


def write_synthetic_set(
    *, layout: str, num: int, seed: int, out: str | Path, size: tuple[int, int] = (256, 256), num_raters: int = 1
) -> None:
    """Generate a set and write it in the layout of a public set; a run that stops early leaves nothing at `out`.

    The ISIC layouts have training, validation and test folders in the official proportion, each with at least one image
    if there are three or more.

    Args:
        layout: A name from `list_layouts()`.
        num: Number of images. Image i of a seed is the same in a set of any size.
        seed: Seed of the set.
        out: Folder to write; it may exist if it is empty.
        size: Height and width of the images in pixels.
        num_raters: Number of raters; 2 or more put their masks into masks/rater1, masks/rater2, …, in layout "folder".
    Raises:
        ValueError: `layout` is unknown, or a number is out of range.
        FileExistsError: `out` is a file or a folder that is not empty.
    """
    if layout not in _LAYOUTS:
        raise ValueError(f"unknown layout {layout!r}; known are {', '.join(list_layouts())}")
    if num < 1:
        raise ValueError(f"a set has at least 1 image, got {num}")
    if seed < 0:
        raise ValueError(f"a seed is 0 or more, got {seed}")
    if num_raters < 1 or (num_raters > 1 and layout != "folder"):
        raise ValueError(f"several raters are for layout 'folder', and 1 for others; got {num_raters} and {layout!r}")
    if min(size) < _MIN_SIDE:
        raise ValueError(f"height and width are at least {_MIN_SIDE} pixels, got {size[0]} x {size[1]}")
    out = Path(out).resolve()
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise FileExistsError(f"{out} exists and is not an empty folder: name another, or remove it")
    cases = _LAYOUTS[layout].cases(num)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        # A subfolder, because a temporary folder is accessible by its owner only.
        root = Path(scratch) / "set"
        for index, case in enumerate(tqdm(cases, desc="generating", unit="img", disable=None)):
            image, mask = generate_sample(seed=seed, index=index, size=size)
            _write(Image.fromarray(image), root / case.image)
            if num_raters > 1:
                for rater in range(1, num_raters + 1):
                    drawn = redraw_mask(mask, seed=seed, index=index, rater=rater)
                    _write(Image.fromarray(drawn), root / case.mask.parent / f"rater{rater}" / case.mask.name)
                continue
            # PH2 has 1-bit masks, ISIC has 8-bit masks.
            _write(Image.fromarray(mask).convert("1" if case.mask.suffix == ".bmp" else "L"), root / case.mask)
        _LAYOUTS[layout].add_extras(root, cases)
        _mark_as_synthetic(root, cases)
        if out.is_dir():
            out.rmdir()
        root.rename(out)


def _isic_cases(num: int, *, images: str, masks: str, official: dict[str, int]) -> list[_Case]:
    """Cases with subsets in the official proportion and a folder for each; ids have gaps, as in the archives."""
    proportional = (round(num * count / sum(official.values())) for count in official.values())
    _, val, test = (max(count, int(num >= len(official))) for count in proportional)
    counts = num - val - test, val, test
    subsets = [subset for subset, count in zip(official, counts, strict=True) for _ in range(count)]
    cases = []
    for index, subset in enumerate(subsets):
        image_id = f"ISIC_{index + index // 5:07d}"
        image = Path(images.format(subset), f"{image_id}.jpg")
        cases.append(_Case(image_id, image, Path(masks.format(subset), f"{image_id}_segmentation.png")))
    return cases


def _ph2_cases(num: int) -> list[_Case]:
    cases = []
    for number in range(2, num + 2):
        image_id = f"IMD{number:03d}"
        folder = Path("PH2Dataset", "PH2 Dataset images", image_id)
        image = folder / f"{image_id}_Dermoscopic_Image" / f"{image_id}.bmp"
        cases.append(_Case(image_id, image, folder / f"{image_id}_lesion" / f"{image_id}_lesion.bmp"))
    return cases


def _folder_cases(num: int) -> list[_Case]:
    ids = [f"case_{number:04d}" for number in range(num)]
    return [_Case(i, Path("images", f"{i}.jpg"), Path("masks", f"{i}.png")) for i in ids]


def _add_isic2017_extras(root: Path, cases: list[_Case]) -> None:
    """Add superpixel images and a table of patients to the images."""
    for folder in {case.image.parent for case in cases}:
        own = [case for case in cases if case.image.parent == folder]
        rows = [(case.id, 20 + 5 * (row % 13), ("female", "male")[row % 2]) for row, case in enumerate(own)]
        table = root / folder / f"{folder.name}_metadata.csv"
        write_table(table, ("image_id", "age_approximate", "sex"), rows)
        for case in own[:3]:
            with Image.open(root / case.image) as image:
                width, height = image.size
            tiles = np.arange(height)[:, None] // 16 * 64 + np.arange(width) // 16
            code = np.stack([tiles % 256, tiles // 256, np.zeros_like(tiles)], axis=-1)
            _write(Image.fromarray(code.astype(np.uint8)), root / folder / f"{case.id}_superpixels.png")


def _add_isic2018_extras(root: Path, cases: list[_Case]) -> None:
    """Add license and attribution texts to every folder."""
    for folder in {path.parent for case in cases for path in (case.image, case.mask)}:
        write_text(root / folder / "LICENSE.txt", "Drawn by mhsvm: no rights reserved.\n")
        write_text(root / folder / "ATTRIBUTION.txt", "mhsvm synthesize\n")


def _add_ph2_extras(root: Path, cases: list[_Case]) -> None:
    """Add regions of interest of every other image, and a table of cases."""
    for case in cases[::2]:
        path = root / case.image.parents[1] / f"{case.id}_roi" / f"{case.id}_R1_Label3.bmp"
        path.parent.mkdir()
        shutil.copyfile(root / case.mask, path)
    lines = [f"|| {case.id} ||" for case in cases]
    write_lines(root / "PH2Dataset" / "PH2_dataset.txt", lines)


def _mark_as_synthetic(root: Path, cases: list[_Case]) -> None:
    """Add the file that preparation looks for to the upper folders, since each may be moved or packed alone."""
    for folder in {folder for case in cases for path in (case.image, case.mask) for folder in path.parents}:
        if len(folder.parts) <= 2:
            write_text(root / folder / SYNTHETIC_MARKER, _MARK)


def _add_nothing(root: Path, cases: list[_Case]) -> None:
    pass


def _write(image: Image.Image, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".jpg":
        image.save(path, quality=90)
    else:
        image.save(path)


_LAYOUTS = {
    "isic2017": _Layout(
        partial(
            _isic_cases,
            images="ISIC-2017_{}_Data",
            masks="ISIC-2017_{}_Part1_GroundTruth",
            official={"Training": 2000, "Validation": 150, "Test_v2": 600},
        ),
        _add_isic2017_extras,
    ),
    "isic2018": _Layout(
        partial(
            _isic_cases,
            images="ISIC2018_Task1-2_{}_Input",
            masks="ISIC2018_Task1_{}_GroundTruth",
            official={"Training": 2594, "Validation": 100, "Test": 1000},
        ),
        _add_isic2018_extras,
    ),
    "ph2": _Layout(_ph2_cases, _add_ph2_extras),
    "folder": _Layout(_folder_cases, _add_nothing),
}
