"""Trained models written to files that need no Python, run there, and compared with the model in float64."""

import copy
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from mhsvm.assemble.members import choose_threshold
from mhsvm.assemble.networks import build_model, forget_initial_weights
from mhsvm.assemble.trained import Trained
from mhsvm.data.augment import NORMALIZATIONS
from mhsvm.export import FORMATS, Comparison, Export, Facts, Format
from mhsvm.export.comparison import HALF_LIMIT, LIMIT, compare
from mhsvm.files import StrPath, full_disk_named, make_partial_folder
from mhsvm.inference.predictor import ImageLike, read_rgb
from mhsvm.models.pretrained import FOLDER, read_index
from mhsvm.synthetic import generate_sample

_NUM_DRAWN = 8
# Names of the checkpoints of every run.
_OF_RUNS = ("best", "last")


@dataclass(frozen=True)
class Exported:
    """Files of an exported model.

    Attributes:
        files: The files.
        comparison: With the network in float64; None if this machine cannot run the files.
        not_run: Why it cannot; "" if it can.
        beside: As `comparison`, of the model beside it.
    """

    files: tuple[Path, ...]
    comparison: Comparison | None
    not_run: str = ""
    beside: Sequence[Comparison] = ()


def export_trained(
    trained: Trained,
    format: str,
    out: StrPath,
    *,
    half: bool = False,
    threshold: float | None = None,
    beside: Trained | None = None,
    scan: bool = False,
    images: Sequence[ImageLike] = (),
) -> Exported:
    """Write a trained model in a format, and compare the result with the model in float64.

    Args:
        trained: The model, on the CPU.
        format: A name from `mhsvm.export.FORMATS`.
        out: The file, or the folder, to write or replace.
        half: Store the weights in 16 bits.
        threshold: Probability at and above which a pixel is lesion; None takes the checkpoint's.
        beside: A second model for the same files, of the formats `html` and `site`.
        scan: Scan by the operator Scan, of the format `onnx`: smaller and faster in ONNX Runtime, but not every runtime
            has it.
        images: Images to compare on, besides generated ones.
    Raises:
        ValueError: The format is unknown or cannot hold this model, the threshold is outside of 0..1, or the result
            differs by more than 1e-4 (with `half` 1e-2) in probability; then nothing is left.
        FileNotFoundError: The folder of `out` does not exist.
        FileExistsError: The format is a folder, and `out` holds something else.
    """
    chosen, out = FORMATS[format], Path(out)
    _check_out(chosen, out)
    models = [trained] if beside is None else [trained, beside]
    if scan and not chosen.takes_scan:
        raise ValueError(f"the format {format} has no operators to choose from: leave `scan` out")
    exports = [Export(each.model, _facts(each, threshold), half, scan=scan) for each in models]
    for each, export in zip(models, exports, strict=True):
        reason = chosen.unsupported_reason(export)
        if reason is not None:
            raise ValueError(f"{each.name} cannot be written as {format}: {reason}")
        _check_size(each)
    if beside is not None:
        exports[0] = _with_beside(exports[0], exports[1], chosen, format)
    given = [read_rgb(image) for image in images]
    with _place(chosen, out) as place:
        written = chosen.write(exports[0], place)
        found = [
            _run(chosen, format, written, each, export, given) for each, export in zip(models, exports, strict=True)
        ]
    files = tuple((out.parent if chosen.folder is None else out) / path.name for path in written)
    reasons = [each for each in found if isinstance(each, str)]
    comparisons = [each for each in found if isinstance(each, Comparison)]
    return Exported(files, comparisons[0] if comparisons else None, "".join(reasons[:1]), comparisons[1:])


def _check_out(format: Format, out: Path) -> None:
    if not out.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {out.parent} for {out.name}: make it first")
    if format.folder is not None:
        format.folder.check(out)
    elif out.is_dir():
        raise ValueError(f"{out} is a folder: name a file in it")


def _check_size(trained: Trained) -> None:
    stride: Any = trained.model.stride
    h, w = trained.size
    if min(h, w) < 1 or h % stride or w % stride:
        raise ValueError(
            f"{trained.name} records images of {h} x {w}, and its network takes multiples of {stride}: the file is "
            "damaged, or was changed after its training"
        )


def _with_beside(export: Export, second: Export, chosen: Format, format: str) -> Export:
    if not chosen.takes_beside:
        raise ValueError(f"the format {format} holds one model: leave `beside` out")
    if second.facts.sha256 == export.facts.sha256:
        raise ValueError(f"`beside` is the same checkpoint, {export.facts.name}: name another one, or leave it out")
    return replace(export, beside=second)


def _run(
    chosen: Format, format: str, written: tuple[Path, ...], trained: Trained, export: Export, given: list[np.ndarray]
) -> Comparison | str:
    """Compare a model of written files with its network; the reason if this machine cannot run them.

    Raises:
        ValueError: They differ.
    """
    run = chosen.open(written, export.facts)
    if isinstance(run, str):
        return run
    comparison = compare(
        run,
        trained.model,
        _exact(trained),
        [*_drawn(trained.size), *given],
        size=trained.size,
        threshold=export.facts.threshold,
        normalize=NORMALIZATIONS[export.facts.normalization],
        resizes=chosen.resizes,
    )
    limit = HALF_LIMIT if export.half else LIMIT
    if not comparison.greatest <= limit:
        raise ValueError(
            f"the {format} file of {trained.name} is not written: its probabilities differ by "
            f"{comparison.greatest:.1e} from those of the network in float64; the limit is {limit:.0e}"
        )
    return comparison


@contextmanager
def _place(format: Format, out: Path) -> Iterator[Path]:
    """Yield a hidden file or folder to write in place of `out`; it is moved there when the block ends without an error.

    Raises:
        OSError: There is no permission or no room to write; the error names `out`.
    """
    if format.folder is not None:
        with format.folder.replace(out) as folder:
            yield folder
        return
    hidden = make_partial_folder(out)
    try:
        with full_disk_named(out):
            yield hidden / out.name
        written = [*hidden.iterdir()]
        for path in written:
            if (out.parent / path.name).is_dir():
                raise IsADirectoryError(f"{out.parent / path.name} is a folder, where a file is to be written: move it")
        for path in written:
            path.replace(out.parent / path.name)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _facts(trained: Trained, threshold: float | None) -> Facts:
    released = {row.sha256: row for row in read_index()} if trained.path and trained.path.parent == FOLDER else {}
    row = released.get(trained.checksum or "")
    config = trained.config
    return Facts(
        name=row.name if row else _name(trained),
        sha256=trained.checksum or "none, it was not saved",
        model=config.model.name,
        num_classes=trained.num_classes,
        size=trained.size,
        normalization=config.data.normalization,
        threshold=choose_threshold([trained], threshold),
        license=row.license if row else "",
    )


def _name(trained: Trained) -> str:
    """The name of a checkpoint without its folders; those of all runs are alike, so theirs begins with the run's."""
    if trained.path is None:
        return "a run in memory"
    stem, run = trained.path.stem, trained.config.run.name
    return f"{run}, {stem}" if stem in _OF_RUNS and run else stem


def _exact(trained: Trained) -> nn.Module:
    """The network in float64."""
    config = trained.config.clone()
    config.defrost()
    forget_initial_weights(config)
    exact = build_model(config, backend="reference")
    exact.load_state_dict(copy.deepcopy(trained.model.state_dict()))
    return exact.double().eval()


def _drawn(size: tuple[int, int]) -> list[np.ndarray]:
    """Generated images, and the extremes: black, and noise of black and white."""
    noise = 255 * np.random.default_rng(0).integers(0, 2, (*size, 3), np.uint8)
    samples = [generate_sample(seed=0, index=index, size=size)[0] for index in range(_NUM_DRAWN)]
    return [*samples, np.zeros((*size, 3), np.uint8), noise]
