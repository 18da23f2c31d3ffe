"""Make the page of a test from the files in its folder."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.evaluation.evaluator import target_masks
from mhsvm.evaluation.summary import SCHEMA
from mhsvm.inference.probability import stored_to_mask
from mhsvm.prepare.sets import open_predicted_set
from mhsvm.report.gallery import show_case
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.report.rendering import render_page
from mhsvm.report.training import Training, read_test_times, read_training
from mhsvm.store import PredictionSet, PreparedSet, read_gate_maps
from mhsvm.system import num_cores
from mhsvm.threads import in_order


def make_page(run: MeasuredRun, set_name: str | None = None) -> str:
    """Read the cases, maps and training of a test, and render its page.

    Args:
        run: The test of a run.
        set_name: Name or path of the set that was tested on; None looks for it at its recorded place, then in data/.
    Raises:
        FileNotFoundError: The test has no predictions, or the set is missing.
        ValueError: The test is of an older version, its files disagree, or the set has changed since.
    """
    _check_is_test(run)
    maps = run.folder / "maps.h5"
    with ExitStack() as stack:
        predictions = stack.enter_context(PredictionSet.open(run.folder / "predictions.h5"))
        prepared = stack.enter_context(open_predicted_set(predictions, set_name))
        if predictions.ids != run.scores.ids:
            raise ValueError(f"cases.csv and predictions.h5 of {run.folder} do not hold the same images: test again")
        arrays = _arrays_of_cases(predictions, prepared, run.summary["protocol"]["threshold"])
        cases = list(in_order(lambda case: show_case(**case), arrays, num_workers=num_cores()))
    return render_page(
        run,
        cases,
        training=_training_of(run.folder),
        times=read_test_times(run.folder / "times.json"),
        maps=read_gate_maps(maps) if maps.is_file() else None,
    )


def _check_is_test(run: MeasuredRun) -> None:
    if not (run.folder / "predictions.h5").is_file():
        raise FileNotFoundError(
            f"{run.folder} has no predictions.h5: there are no probabilities to show. Report the test of a run"
        )
    if run.summary["schema"] != SCHEMA:
        raise ValueError(
            f"{run.folder} is of an older version: its schema is {run.summary['schema']}, not {SCHEMA}. Test again"
        )


def _arrays_of_cases(
    predictions: PredictionSet, prepared: PreparedSet, threshold: float
) -> Iterator[dict[str, np.ndarray]]:
    """Arguments of `show_case` for each image."""
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
            "target": target_masks(torch.from_numpy(mask), predictions.num_classes).numpy(),
            "pred": stored_to_mask(probability, threshold),
            "probability": probability,
        }


def _training_of(test: Path) -> Training | None:
    """The training whose run folder contains a test; None if there is none."""
    parents = test.resolve().parents
    run = parents[1] if parents[0].name == "tests" else None
    return read_training(run) if run is not None and (run / "metrics.jsonl").is_file() else None
