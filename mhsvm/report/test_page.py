"""The page of a test: its cases read from the prepared set and the probabilities."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.evaluation.evaluator import target_masks
from mhsvm.evaluation.summary import SCHEMA
from mhsvm.inference.probability import stored_to_mask
from mhsvm.report.gallery import show_case
from mhsvm.report.html import report_page
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.report.training import Training, read_test_times, read_training
from mhsvm.store import PredictionSet, PreparedSet, read_gate_maps
from mhsvm.system import num_cores
from mhsvm.threads import in_order


def check_is_test(run: MeasuredRun) -> None:
    """Make sure that a folder holds a test of this version with its probabilities.

    Raises:
        FileNotFoundError: It has no probabilities.
        ValueError: An older version has made it.
    """
    if not (run.folder / "predictions.h5").is_file():
        raise FileNotFoundError(
            f"{run.folder} has no predictions.h5: there are no probabilities to show. Report the test of a run"
        )
    if run.summary["schema"] != SCHEMA:
        raise ValueError(
            f"{run.folder} is of an older version: its schema is {run.summary['schema']}, not {SCHEMA}. Test again"
        )


def test_page(run: MeasuredRun, predictions: PredictionSet, prepared: PreparedSet) -> str:
    """The HTML page of a test, with the image, target and prediction of every case.

    Args:
        run: The test.
        predictions: Its probabilities.
        prepared: The set that it was tested on.
    Raises:
        ValueError: The cases and the probabilities do not belong together.
    """
    if predictions.ids != run.scores.ids:
        raise ValueError(f"cases.csv and predictions.h5 of {run.folder} do not hold the same images: test again")
    maps_of_cases = _cases(predictions, prepared, run.summary["protocol"]["threshold"])
    cases = list(in_order(lambda arrays: show_case(**arrays), maps_of_cases, num_workers=num_cores()))
    maps = run.folder / "maps.h5"
    return report_page(
        run,
        cases,
        training=_training_of(run.folder),
        times=read_test_times(run.folder / "times.json"),
        maps=read_gate_maps(maps) if maps.is_file() else None,
    )


def _cases(predictions: PredictionSet, prepared: PreparedSet, threshold: float) -> Iterator[dict[str, np.ndarray]]:
    """The arguments of `show_case` for each image."""
    row_of = {image_id: row for row, image_id in enumerate(prepared.ids)}
    for place, image_id in enumerate(tqdm(predictions.ids, unit="img", disable=None, dynamic_ncols=True)):
        row = row_of[image_id]
        (image,), (mask,), (probability,) = (
            prepared.images([row]),
            prepared.masks([row]),
            predictions.probability([place]),
        )
        yield {
            "image": image,
            "truth": target_masks(torch.from_numpy(mask), predictions.num_classes).numpy(),
            "pred": stored_to_mask(probability, threshold),
            "probability": probability,
        }


def _training_of(test: Path) -> Training | None:
    """The training of a test in a run folder; None elsewhere."""
    parents = test.resolve().parents
    run = parents[1] if parents[0].name == "tests" else None
    return read_training(run) if run is not None and (run / "metrics.jsonl").is_file() else None
