"""Segment all images of a folder with released weights, and save each mask drawn over its image.

    python examples/predict_folder.py IMAGES OVERLAYS [--weights isic2017-wu-sorted]

Shows `mhsvm.load_predictor`, prediction in batches of images of any sizes, and `mhsvm.draw_prediction`. The command
`mhsvm predict` also writes masks, contours and areas, and continues where it was stopped.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

import mhsvm
from mhsvm.prepare.formats import is_read


def main(argv: Sequence[str] | None = None) -> None:
    """Segment the images in batches, so that a folder of any size fits into memory."""
    arguments = parse(argv)
    paths = sorted(path for path in arguments.images.iterdir() if is_read(path.name))
    arguments.overlays.mkdir(parents=True, exist_ok=True)
    # loaded once, used for every batch
    predictor = mhsvm.load_predictor(arguments.weights, device=arguments.device, batch_size=arguments.batch_size)
    for start in range(0, len(paths), arguments.batch_size):
        batch = paths[start : start + arguments.batch_size]
        for path, (mask, _) in zip(batch, mhsvm.predict(batch, predictor), strict=True):
            overlay = mhsvm.draw_prediction(path, mask)
            Image.fromarray(overlay).save(arguments.overlays / f"{path.stem}.png")
            print(f"{path.name}: {mask.mean():.1%} lesion")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Segment a folder of images and save overlays.")
    parser.add_argument("images", type=Path, help="folder of images of any sizes")
    parser.add_argument("overlays", type=Path, help="folder for the overlays; made if it does not exist")
    parser.add_argument("--weights", default="isic2017-wu-sorted", help="a released name, or a checkpoint")
    parser.add_argument("--batch-size", type=int, default=8, help="images per batch; default 8")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …; default auto")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
