"""`mhsvm report RUN`: a page that shows what a test found, and where the model fails."""

import argparse
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from mhsvm.evaluation.evaluator import truth_of
from mhsvm.evaluation.tables import SCHEMA
from mhsvm.files import replace_when_complete
from mhsvm.inference.probability import stored_to_mask
from mhsvm.prepare.sets import open_predicted_set
from mhsvm.report.gallery import show_case
from mhsvm.report.html import report_page
from mhsvm.report.measured_run import MeasuredRun, find_tests, read_runs
from mhsvm.report.training import Training, read_test_times, read_training
from mhsvm.store import PredictionSet, PreparedSet, read_gate_maps
from mhsvm.system import num_cores
from mhsvm.threads import in_order


def main(argv: Sequence[str] | None = None) -> int:
    """Write report.html, one file that needs nothing else, into the folder of each test of a run."""
    arguments = _parse(argv)
    tests = find_tests(arguments.run)
    if arguments.test is not None:
        (chosen,) = read_runs([arguments.run], test=arguments.test)
        tests = {chosen.folder.name: chosen.folder}
    if arguments.out is not None and len(tests) > 1:
        raise ValueError(f"--out is for the page of one test; choose with --test one of {', '.join(tests)}")
    for folder in tests.values():
        (run,) = read_runs([folder])
        _check_is_test(run)
        path = arguments.out or folder / "report.html"
        page = _make_page(run, arguments.d)
        with replace_when_complete(path) as partial:
            partial.write_text(page, encoding="utf-8")
        print(f"{path}: {len(run.scores)} images, {path.stat().st_size / 1e6:.1f} MB")
    return 0


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mhsvm report", description=main.__doc__, allow_abbrev=False)
    parser.add_argument("run", type=Path, metavar="RUN", help="folder of a run or of one of its tests")
    parser.add_argument("--test", metavar="NAME", help="of its tests this one alone, such as isic2017-wu-sorted")
    parser.add_argument("--d", metavar="SET", help="where the set is that was tested; default: where it was, or data/")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: report.html in the test's folder")
    return parser.parse_args(argv)


def _check_is_test(run: MeasuredRun) -> None:
    if not (run.folder / "predictions.h5").is_file():
        raise FileNotFoundError(
            f"{run.folder} has no predictions.h5: there are no probabilities to show. Report the test of a run"
        )
    if run.summary["schema"] != SCHEMA:
        raise ValueError(
            f"{run.folder} is of an older version: its schema is {run.summary['schema']}, not {SCHEMA}. Test again"
        )


def _make_page(run: MeasuredRun, set_name: str | None) -> str:
    maps = run.folder / "maps.h5"
    with ExitStack() as stack:
        predictions = stack.enter_context(PredictionSet.open(run.folder / "predictions.h5"))
        prepared = stack.enter_context(open_predicted_set(predictions, set_name))
        if predictions.ids != run.scores.ids:
            raise ValueError(f"cases.csv and predictions.h5 of {run.folder} do not hold the same images: test again")
        maps_of_cases = _cases(predictions, prepared, run.summary["protocol"]["threshold"])
        cases = list(in_order(lambda arrays: show_case(**arrays), maps_of_cases, num_workers=num_cores()))
    return report_page(
        run,
        cases,
        training=_training_of(run.folder),
        times=read_test_times(run.folder / "times.json"),
        maps=read_gate_maps(maps) if maps.is_file() else None,
    )


def _cases(predictions: PredictionSet, prepared: PreparedSet, threshold: float) -> Iterator[dict[str, np.ndarray]]:
    """What `show_case` takes, of each image."""
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
            "truth": truth_of(torch.from_numpy(mask), predictions.num_classes).numpy(),
            "pred": stored_to_mask(probability, threshold),
            "probability": probability,
        }


def _training_of(test: Path) -> Training | None:
    """The training in whose folder a test lies; None elsewhere."""
    parents = test.resolve().parents
    run = parents[1] if parents[0].name == "tests" else None
    return read_training(run) if run is not None and (run / "metrics.jsonl").is_file() else None
