"""Trained models written to files that need no Python, run there, and compared with the model in float64."""

import copy
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from mhsvm.assemble.networks import build_model
from mhsvm.assemble.trained import Trained
from mhsvm.export import FORMATS, Comparison, Export, Facts
from mhsvm.export.comparison import HALF_LIMIT, LIMIT, compare
from mhsvm.files import StrPath
from mhsvm.inference.predictor import ImageLike, read_rgb
from mhsvm.models.pretrained import FOLDER, read_index
from mhsvm.prepare.resize import resize_image
from mhsvm.synthetic import generate_sample

_NUM_DRAWN = 8


@dataclass(frozen=True)
class Exported:
    """Files of an exported model.

    Attributes:
        files: The files.
        comparison: With the network in float64; None if this machine cannot run the files.
        not_run: Why it cannot; "" if it can.
    """

    files: tuple[Path, ...]
    comparison: Comparison | None
    not_run: str = ""


def export_trained(
    trained: Trained,
    format: str,
    out: StrPath,
    *,
    half: bool = False,
    threshold: float | None = None,
    images: Sequence[ImageLike] = (),
) -> Exported:
    """Write a trained model in a format, and compare the result with the model in float64.

    Args:
        trained: The model, on the CPU.
        format: A name from `mhsvm.export.FORMATS`.
        out: The file to write or replace.
        half: Store the weights in 16 bits.
        threshold: Probability at and above which a pixel is lesion; None takes the checkpoint's.
        images: Images to compare on, besides generated ones.
    Raises:
        ValueError: The format is unknown or cannot hold this model, or the result differs by more than 1e-4 (with
            `half` 1e-2) in probability; then nothing is left.
        FileNotFoundError: The folder of `out` does not exist.
    """
    chosen, out = FORMATS[format], Path(out)
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} for {out.name}: make it first")
    if out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it")
    export = Export(trained.model, _facts(trained, threshold), half)
    reason = chosen.unsupported_reason(export)
    if reason is not None:
        raise ValueError(f"{trained.name} cannot be written as {format}: {reason}")
    arrays = [*_drawn(trained.size), *(resize_image(read_rgb(image), trained.size) for image in images)]
    with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as folder:
        written = chosen.write(export, Path(folder, out.name))
        run = chosen.open(written, export.facts)
        comparison = None
        if not isinstance(run, str):
            exact = _exact(trained)
            comparison = compare(run, trained.model, exact, arrays, export.facts.threshold)
            limit = HALF_LIMIT if half else LIMIT
            if not comparison.greatest <= limit:
                raise ValueError(
                    f"the {format} file of {trained.name} is not written: its probabilities differ by "
                    f"{comparison.greatest:.1e} from those of the network in float64; the limit is {limit:.0e}"
                )
        files = tuple(path.replace(out.parent / path.name) for path in written)
    return Exported(files, comparison, run if isinstance(run, str) else "")


def _facts(trained: Trained, threshold: float | None) -> Facts:
    released = {row.sha256: row for row in read_index()} if trained.path and trained.path.parent == FOLDER else {}
    row = released.get(trained.checksum or "")
    config = trained.config
    return Facts(
        name=row.name if row else (trained.path.stem if trained.path else "a run in memory"),
        sha256=trained.checksum or "none, it was not saved",
        model=config.model.name,
        num_classes=trained.num_classes,
        size=trained.size,
        normalization=config.data.normalization,
        threshold=float(config.evaluation.threshold if threshold is None else threshold),
        license=row.license if row else "",
    )


def _exact(trained: Trained) -> nn.Module:
    """The network in float64."""
    config = trained.config.clone()
    config.defrost()
    config.model.weights = ""
    exact = build_model(config, backend="reference")
    exact.load_state_dict(copy.deepcopy(trained.model.state_dict()))
    return exact.double().eval()


def _drawn(size: tuple[int, int]) -> list[np.ndarray]:
    """Generated images, and the extremes: black, and noise of black and white."""
    noise = 255 * np.random.default_rng(0).integers(0, 2, (*size, 3), np.uint8)
    samples = [generate_sample(seed=0, index=index, size=size)[0] for index in range(_NUM_DRAWN)]
    return [*samples, np.zeros((*size, 3), np.uint8), noise]
