"""Train and test a network from Python, on synthetic images in a temporary folder.

    python examples/train_and_evaluate.py [--device cuda]

Shows `mhsvm.train` without a run folder, the metrics of each epoch, `mhsvm.evaluate` with its intervals and scores per
image, and the prediction of the worst test image.
"""

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path

import mhsvm
from mhsvm.metrics import per_image
from mhsvm.synthetic import write_synthetic_set


def main(argv: Sequence[str] | None = None) -> None:
    """Train on a set with the subsets train, val and test, and print the result."""
    arguments = parse(argv)
    with tempfile.TemporaryDirectory() as scratch:
        lesions = Path(scratch, "lesions")
        size = (arguments.size, arguments.size)
        write_synthetic_set(layout="folder", num=arguments.images, seed=0, out=lesions, size=size)

        settings = {
            "run.device": arguments.device,
            # 60 % of the images train, 20 % validate and 20 % test, shuffled with seed 0
            "data": {"set": str(lesions), "size": arguments.size, "split": "ratio-60-20-20-0"},
            "train": {"epochs": arguments.epochs, "batch_size": 8},
        }
        run = mhsvm.train(settings, progress=True)
        for epoch in run.history:
            print(f"epoch {epoch['epoch']}: loss {epoch['train_loss']:.3f}, validation DSC {epoch['val_dsc']:.3f}")

        # the run knows its split: the images of the part "test" are measured
        result = mhsvm.evaluate(run, lesions)
        low, high = result.intervals["dsc"]
        print(f"DSC of {len(result.ids)} test images: {result.metrics['dsc']:.3f} (95 % interval {low:.3f}-{high:.3f})")

        dice = per_image(result.scores.counts)["dice"][:, 0]
        worst = result.ids[int(dice.argmin())]
        mask, probability = mhsvm.predict(lesions / "images" / f"{worst}.jpg", run)
        print(f"worst image: {worst}, Dice {dice.min():.3f}, {mask.mean():.1%} predicted as lesion")
        print(f"its probability: {probability.min():.2f} to {probability.max():.2f}")


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Read the options."""
    parser = argparse.ArgumentParser(description="Train and test a network on synthetic images.")
    parser.add_argument("--images", type=int, default=60, help="number of images; default 60")
    parser.add_argument("--size", type=int, default=64, help="side of the images in pixels; default 64")
    parser.add_argument("--epochs", type=int, default=5, help="default 5")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, …; default auto")
    return parser.parse_args(argv)


if __name__ == "__main__":
    main()
