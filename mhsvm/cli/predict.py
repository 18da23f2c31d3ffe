"""`mhsvm predict --p CHECKPOINT --source IMAGES --out FOLDER`: segment images of your own."""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

import numpy as np
from PIL import Image
from tqdm import tqdm

from mhsvm.build import build_device, build_predictor, load_trained
from mhsvm.cli.options import add_model_options
from mhsvm.data.pairs import EXTENSIONS
from mhsvm.engine.predictor import Predictor, read_rgb
from mhsvm.report.overlay import class_palette, draw_prediction

# hidden files, and the segments of pictures that ISIC's archives hold beside them
_NO_PICTURE = re.compile(r"^\.|_superpixels\.")


def main(argv: Sequence[str] | None = None) -> int:
    """Segment images: masks at each image's own size, and overlays to look at."""
    arguments = _parse(argv)
    sources = _find_images(arguments.source)
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise FileExistsError(f"{arguments.out} exists and is not empty: choose another folder with --out")
    device = build_device(arguments.device)
    trained = load_trained(
        arguments.p, gate_threshold=arguments.gate_threshold, backend=arguments.backend, device=device
    )
    for note in trained.notes:
        print(f"note: {note}")
    batch_size = arguments.batch_size or trained.batch_size
    predictor = build_predictor([trained], device, batch_size=batch_size)
    unreadable = _predict(predictor, sources, arguments.out, batch_size=batch_size, num_classes=trained.num_classes)
    print(f"{len(sources) - len(unreadable)} masks in {arguments.out / 'masks'}, over their images in overlays/")
    if unreadable:
        print(f"error: {len(unreadable)} of {len(sources)} images could not be read:", file=sys.stderr)
        print("\n".join(f"  {problem}" for problem in unreadable), file=sys.stderr)
        return 1
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mhsvm predict", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("--p", required=True, metavar="FILE", help="checkpoint, ours or a published one")
    parser.add_argument("--source", required=True, type=Path, metavar="PATH", help="an image, or a folder of images")
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER", help="new folder for masks/ and overlays/")
    add_model_options(parser)
    return parser.parse_args(argv)


def _find_images(source: Path) -> dict[Path, PurePath]:
    """Path of each image -> the path without an ending, below masks/ and overlays/, that its results get.

    Raises:
        FileNotFoundError: There is no such file or folder, or no image in it.
    """
    if source.is_file():
        return {source: PurePath(source.stem)}
    if not source.is_dir():
        raise FileNotFoundError(f"there is no image and no folder {source}")
    found = sorted(
        path.relative_to(source)
        for path in source.rglob("*")
        if path.suffix.lower() in EXTENSIONS and path.is_file() and not _NO_PICTURE.search(path.name)
    )
    if not found:
        raise FileNotFoundError(f"there is no image in {source}; looked for {', '.join(EXTENSIONS)}")
    return {source / path: name for path, name in zip(found, _result_names(found), strict=True)}


def _result_names(paths: Sequence[PurePath]) -> list[PurePath]:
    """Each image's path without its ending; with it, where that would be another image's path, too."""
    # some file systems take capitals for small letters
    wanted = Counter(str(path.with_suffix("")).lower() for path in paths)
    whole = {str(path).lower() for path in paths}

    def is_free(stem: PurePath) -> bool:
        return wanted[str(stem).lower()] == 1 and str(stem).lower() not in whole

    return [path.with_suffix("") if is_free(path.with_suffix("")) else path for path in paths]


def _predict(
    predictor: Predictor, sources: dict[Path, PurePath], out: Path, *, batch_size: int, num_classes: int
) -> list[str]:
    """Segment and write all that can be read; what cannot be is returned, with the reason."""
    unreadable, paths = [], list(sources)
    with tqdm(total=len(paths), unit="img", disable=None, dynamic_ncols=True) as bar:
        for start in range(0, len(paths), batch_size):
            images = {}
            for path in paths[start : start + batch_size]:
                try:
                    images[path] = read_rgb(path)
                except (ValueError, OSError) as error:
                    unreadable.append(str(error))
            predictions = predictor.predict_batch(list(images.values())) if images else []
            for (path, image), prediction in zip(images.items(), predictions, strict=True):
                _write(out, sources[path], image, prediction.mask, num_classes=num_classes)
            bar.update(len(paths[start : start + batch_size]))
    return unreadable


def _write(out: Path, name: PurePath, image: np.ndarray, mask: np.ndarray, *, num_classes: int) -> None:
    mask_path, overlay_path = out / "masks" / f"{name}.png", out / "overlays" / f"{name}.jpg"
    for path in (mask_path, overlay_path):
        path.parent.mkdir(parents=True, exist_ok=True)
    if num_classes == 1:
        Image.fromarray(mask * np.uint8(255)).save(mask_path)
    else:
        indexed = Image.fromarray(mask)
        indexed.putpalette(class_palette())
        indexed.save(mask_path)
    Image.fromarray(draw_prediction(image, mask, num_classes=num_classes)).save(overlay_path, quality=90)
