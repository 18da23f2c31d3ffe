"""The folder of a test: where it lies, and the tables that it holds.

cases.csv, cases_native.csv    a row an image, at the set's size and, if it was measured there, at its own
summary.json                   all figures, and what was measured how; the same, byte for byte, when it is made again
times.json                     what the test took, and on what
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from mhsvm.evaluation.calibration import describe_calibration
from mhsvm.evaluation.scores import describe_scores, metrics_lines, write_cases
from mhsvm.evaluation.tables import result_line, write_summary
from mhsvm.leakage import leakage_metrics
from mhsvm.metrics import CalibrationCounts, Scores


def default_folder(checkpoint: Path, name: str) -> Path:
    """Where the test `name` of a checkpoint goes: into the folder of its run, below results/ if it has none."""
    # the best checkpoint is the run's; another one's tests stand beside its
    if checkpoint.absolute().parent.name == "checkpoints":
        folder, suffix = checkpoint.parent.parent, "" if checkpoint.stem == "best" else f"-{checkpoint.stem}"
    else:
        folder, suffix = Path("results") / checkpoint.stem, ""
    return folder / "tests" / re.sub(r"[^\w.-]+", "-", name + suffix)


def check_replaceable(folder: Path) -> None:
    """An older test is replaced; anything else that lies there is not ours to remove.

    Raises:
        FileExistsError: Something else lies there.
    """
    is_test = (folder / "summary.json").is_file() and (folder / "cases.csv").is_file()
    if folder.exists() and not is_test and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} exists and is not the folder of a test: choose another one with --out")


def write_tables(
    folder: Path,
    scores: Scores,
    confusion: Tensor,
    *,
    loss: float,
    num_classes: int,
    calibration: CalibrationCounts,
    described: Mapping,
    native: tuple[Scores, Tensor, Sequence[tuple[int, int]]] | None = None,
) -> list[str]:
    """Write cases.csv and summary.json, and cases_native.csv of what was measured at native size.

    Args:
        folder: It exists.
        scores: Of the images, at the set's size.
        confusion: int64 (k, k), of all of them together.
        loss: Mean of the images.
        num_classes: 1, or k.
        calibration: At the set's size.
        described: What the summary says besides figures: model, protocol, checkpoint, version, device and, as
            `leakage_content` gives it, leakage.
        native: Scores at the images' own sizes, their confusion, and (h, w) of each.
    Returns:
        The figures for a reader, in lines; the last is `result_line`.
    """
    write_cases(folder / "cases.csv", scores, num_classes=num_classes)
    content = describe_scores(scores)
    content["metrics"] = {"loss": loss, **content["metrics"]}
    content |= {
        "confusion_matrix": confusion.tolist(),
        "native": None,
        **describe_calibration(calibration, num_classes=num_classes),
        **described,
    }
    lines = metrics_lines(content)
    if native is not None:
        native_scores, native_confusion, sizes = native
        write_cases(folder / "cases_native.csv", native_scores, num_classes=num_classes, sizes=sizes)
        content["native"] = {**describe_scores(native_scores), "confusion_matrix": native_confusion.tolist()}
        lines += ["at native size:", *metrics_lines(content["native"])]
    write_summary(folder / "summary.json", content)
    lines.append(f"expected calibration error {content['calibration']['ece']:.4f}")
    if content["leakage"]["seen"]:
        lines.append(leakage_metrics(content["leakage"]))
    return [*lines, result_line(loss, scores.counts, confusion)]


def write_times(folder: Path, *, num_images: int, seconds: float, memory_gib: float | None, device: str) -> None:
    """Write times.json, apart from the summary, which is the same when it is made again.

    Args:
        folder: It exists.
        num_images: That were tested.
        seconds: They took.
        memory_gib: At most; None where the system does not tell.
        device: Its model.
    """
    content = {
        "num_images": num_images,
        "seconds": round(seconds, 3),
        "memory_gib": memory_gib,
        "device": device,
        "torch": str(torch.__version__),
    }
    (folder / "times.json").write_text(json.dumps(content) + "\n", encoding="utf-8")
