"""The folder of a test.

cases.csv, cases_native.csv    a row per image, at the set's size and, where it was measured, at the image's own size
raters.csv                     a row per comparison with a rater or a consensus, for sets with several raters
summary.json                   all metrics and the protocol; equal byte for byte when the test is repeated
times.json                     duration, memory and device of the test
predictions.h5                 the probabilities
leaks.csv, leaks-1.png, …      test images with a counterpart in training
figures/                       the best, median and worst cases
maps.h5                        gates of MHS-VM, if asked for
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from mhsvm.evaluation import rater_summary
from mhsvm.evaluation.case_images import Case, choose_cases, write_case_images
from mhsvm.evaluation.evaluator import target_masks
from mhsvm.evaluation.ranking import ranking_line
from mhsvm.evaluation.rater_summary import rater_lines, write_raters
from mhsvm.evaluation.scores import absence_lines, metrics_lines, write_cases
from mhsvm.evaluation.summary import result_line, write_summary
from mhsvm.evaluation.testing import TestResult
from mhsvm.inference.probability import stored_to_mask
from mhsvm.leakage import leakage_metrics, write_leaks
from mhsvm.result_folder import ResultFolder
from mhsvm.store import PredictionSet, PreparedSet, write_gate_maps
from mhsvm.text_file import write_json

PREDICTIONS = "predictions.h5"
RESULTS = ResultFolder(
    kind="a test",
    main="summary.json",
    mark=b'"schema"',
    others=(
        "cases.csv",
        "cases_native.csv",
        "raters.csv",
        "times.json",
        PREDICTIONS,
        "maps.h5",
        "log.txt",
        "leaks.csv",
        "leaks-*.png",
        "figures/overview.png",
        "figures/*-[0-9][0-9][0-9][0-9]*-dice-*.png",
        "report.html",
    ),
)


def default_folder(checkpoint: Path, name: str) -> Path:
    """The folder for test `name` of a checkpoint: in the folder of its run, or in results/ if it has none."""
    # a run's tests are those of its best checkpoint; tests of another one have its name as a suffix
    if checkpoint.absolute().parent.name == "checkpoints":
        folder, suffix = checkpoint.parent.parent, "" if checkpoint.stem == "best" else f"-{checkpoint.stem}"
    else:
        folder, suffix = Path("results") / checkpoint.stem, ""
    return folder / "tests" / re.sub(r"[^\w.-]+", "-", name + suffix)


def write_result(result: TestResult, folder: str | Path) -> None:
    """Write the result of a test to a folder, as `mhsvm test` does; an older test there is replaced.

    Args:
        result: From `mhsvm.evaluate`.
        folder: A new or empty folder, or the folder of an older test.
    Raises:
        FileExistsError: The folder holds anything that no test has written.
        FileNotFoundError: The prepared set of the result is gone.
    """
    with RESULTS.replace(Path(folder)) as partial:
        if isinstance(result.predictions, bytes):
            (partial / PREDICTIONS).write_bytes(result.predictions)
        else:
            shutil.copyfile(result.predictions, partial / PREDICTIONS)
        fill_folder(partial, result)


def fill_folder(folder: Path, result: TestResult) -> None:
    """Write all files of a test but `predictions.h5`, which is in the folder already."""
    write_json(folder / "times.json", result.times, indent=None)
    write_cases(folder / "cases.csv", result.scores, num_classes=result.num_classes)
    if result.native is not None:
        path = folder / "cases_native.csv"
        write_cases(path, result.native.scores, num_classes=result.num_classes, sizes=result.native.sizes)
    if result.raters is not None:
        write_raters(folder / rater_summary.FILE, result.raters)
    write_summary(folder / "summary.json", result.summary)
    leakage = result.leakage
    with PreparedSet.open(result.set_path) as prepared, PredictionSet.open(folder / PREDICTIONS) as predictions:
        if leakage.training_set is not None and leakage.leaks:
            with PreparedSet.open(leakage.training_set) as training_set:
                write_leaks(folder, leakage.leaks, training_set, prepared, name="leaks")
        write_case_images(folder / "figures", list(_cases(result, prepared, predictions)))
    if result.gate_maps is not None:
        write_gate_maps(folder / "maps.h5", result.gate_maps)


def result_lines(result: TestResult) -> list[str]:
    """The metrics of a test for a reader; the last line is `result_line`."""
    summary = result.summary
    lines = [*(f"warning: {line}" for line in absence_lines(result.scores)), *metrics_lines(summary)]
    if summary["native"] is not None:
        lines += ["at native size:", *metrics_lines(summary["native"])]
    if "raters" in summary:
        lines += rater_lines(summary["raters"])
    lines.append(ranking_line(summary["ranking"]))
    lines.append(f"expected calibration error {summary['calibration']['ece']:.4f}")
    if summary["leakage"]["seen"]:
        lines.append(leakage_metrics(summary["leakage"]))
    return [*lines, result_line(result.loss, result.scores.counts, result.confusion)]


def _cases(result: TestResult, prepared: PreparedSet, predictions: PredictionSet) -> Iterator[Case]:
    dice = result.scores.per_image()["dice"].tolist()
    row_of = {image_id: row for row, image_id in enumerate(prepared.ids)}
    for group, rank, place in choose_cases(dice):
        row = row_of[result.ids[place]]
        (image,), (mask,) = prepared.images([row]), torch.from_numpy(prepared.masks([row]))
        (probability,) = predictions.probability([place])
        yield Case(
            id=result.ids[place],
            group=group,
            rank=rank,
            dice=dice[place],
            image=image,
            target=target_masks(mask, result.num_classes).numpy(),
            pred=stored_to_mask(probability, result.threshold),
            probability=probability,
        )
