"""Testing a checkpoint: the images and settings of a test, and its result.

Nothing is written here but, where asked for, the probabilities, batch by batch; see `mhsvm.evaluation.folder`.
"""

import io
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from mhsvm.data.dataset import Dataset, load_dataset
from mhsvm.evaluation.calibration import describe_calibration
from mhsvm.evaluation.evaluator import Evaluation, Evaluator
from mhsvm.evaluation.gates import check_gate_maps, measure_gate_maps
from mhsvm.evaluation.image_score import SizedScores
from mhsvm.evaluation.measurement import Measurement, RaterMeasurement
from mhsvm.evaluation.protocol import Protocol
from mhsvm.evaluation.ranking import describe_ranking
from mhsvm.evaluation.rater_summary import describe_raters
from mhsvm.evaluation.raters import RaterScores
from mhsvm.evaluation.scores import describe_scores
from mhsvm.evaluation.test_run import TestRun
from mhsvm.inference.probability import check_finite
from mhsvm.leakage import Leakage, leakage_content
from mhsvm.metrics import Arguments, Scores, metric_arguments
from mhsvm.models import MHSVM
from mhsvm.prepare.native import NativeMasks
from mhsvm.store import SYNTHETIC, GateMaps, PredictionSet, PredictionWriter
from mhsvm.system import code_version, device_model, peak_memory

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestResult:
    """The result of a test; `mhsvm.write_result` writes it to a folder.

    Attributes:
        scores: Ids, counts (n, c, 4) and distances (n, c, m) of the images, at the set's size.
        native: The same at the images' own sizes; None where it was not measured.
        raters: Comparisons with the masks of several raters, at the set's size; None if the set has one mask an image.
        summary: The content of `summary.json`: metrics, intervals, protocol, checkpoint, leakage and versions.
        protocol: The test images and the reason for their choice.
        leakage: Test images that were seen in training.
        set_path: The prepared set of the images.
        num_classes: 1, or k.
        threshold: Probability at and above which a pixel is lesion.
        loss: Mean loss per image.
        predictions: The HDF5 file with the probabilities, or its bytes.
        gate_maps: The gates of MHS-VM on the chosen images; None if none were chosen.
        times: Duration, memory and device of the test.
    """

    scores: Scores
    native: SizedScores | None
    raters: RaterScores | None
    summary: dict
    protocol: Protocol
    leakage: Leakage
    set_path: Path
    num_classes: int
    threshold: float
    loss: float
    predictions: Path | bytes
    gate_maps: GateMaps | None
    times: dict

    @property
    def ids(self) -> tuple[str, ...]:
        """The n test images."""
        return self.scores.ids

    @property
    def metrics(self) -> dict[str, float | None]:
        """Loss, pooled metrics, and metrics averaged over images (`…_per_image`); None where one is not defined."""
        return self.summary["metrics"]

    @property
    def intervals(self) -> dict[str, list[float | None]]:
        """Lower and upper limit of each metric's confidence interval."""
        return self.summary["intervals"]["limits"]

    @cached_property
    def confusion(self) -> Tensor:
        """int64 (k, k), pixels of all images; rows are targets, columns are predictions."""
        return torch.tensor(self.summary["confusion_matrix"])

    def open_predictions(self) -> PredictionSet:
        """Open the probabilities of all images, to be closed by the caller or used in a `with` block."""
        return PredictionSet.open(self.predictions)


def evaluate_test(
    run: TestRun,
    *,
    boundary: bool = True,
    metric_settings: Sequence[str] = (),
    native: NativeMasks | None = None,
    gate_maps: Sequence[str] = (),
    predictions: Path | None = None,
    progress: bool = False,
) -> TestResult:
    """Measure a model on the images of a test.

    Args:
        run: The test.
        boundary: Measure boundaries, which takes longer.
        metric_settings: Such as "nsd.tolerance=3", see `mhsvm.metrics.metric_arguments`.
        native: Masks at the images' own sizes; measure there too.
        gate_maps: Ids of test images whose gates are kept, for MHS-VM.
        predictions: File to write the probabilities to, batch by batch; by default they are kept compressed in memory.
        progress: Show a progress bar in a terminal.
    Raises:
        ValueError: The output of the model is not finite, or gate maps are not possible.
    """
    arguments = metric_arguments(metric_settings)
    gated = check_gate_maps(run.network, gate_maps, run.ids) if gate_maps else None
    evaluator, dataset = run.evaluator, load_dataset(run.prepared, run.ids)
    measurement = Measurement(
        dataset, threshold=evaluator.threshold, boundary=boundary, arguments=arguments, native=native
    )
    raters = RaterMeasurement.open(run.prepared, threshold=evaluator.threshold, boundary=boundary, arguments=arguments)
    start, buffer = time.perf_counter(), io.BytesIO()
    with _writer(run, buffer if predictions is None else predictions) as writer:
        evaluation = _evaluate(evaluator, dataset, writer, measurement, raters, progress=progress)
    # none of the test images may have a rated mask
    rater_scores = raters.scores if raters is not None and raters.scores.num_images else None
    times = {
        "num_images": len(dataset),
        "seconds": round(time.perf_counter() - start, 3),
        "memory_gib": peak_memory(),
        "device": device_model(evaluator.device),
        "torch": str(torch.__version__),
    }
    scores = Scores(evaluation.ids, evaluation.counts, measurement.distances, measurement.names)
    return TestResult(
        scores=scores,
        native=measurement.native,
        raters=rater_scores,
        summary=_summarize(run, scores, evaluation, measurement, arguments, raters=rater_scores),
        protocol=run.protocol,
        leakage=run.leakage,
        set_path=run.prepared.path,
        num_classes=run.prepared.num_classes,
        threshold=evaluator.threshold,
        loss=evaluation.loss,
        predictions=buffer.getvalue() if predictions is None else predictions,
        gate_maps=None if gated is None else _measure_gates(gated, run, dataset, gate_maps),
        times=times,
    )


def _writer(run: TestRun, target: Path | io.BytesIO) -> PredictionWriter:
    prepared, split = run.prepared, run.protocol.split
    return PredictionWriter(
        target,
        set_name=prepared.path.name,
        set_checksum=prepared.checksum,
        size=prepared.size,
        num_classes=prepared.num_classes,
        attributes={
            "split": split.name,
            "split_hash": split.hash,
            "threshold": run.evaluator.threshold,
            "set_path": str(prepared.path.resolve()),
        },
    )


def _evaluate(
    evaluator: Evaluator,
    dataset: Dataset,
    writer: PredictionWriter,
    measurement: Measurement,
    raters: RaterMeasurement | None,
    *,
    progress: bool,
) -> Evaluation:
    hidden = None if progress else True
    with tqdm(total=len(dataset), unit="img", disable=hidden, dynamic_ncols=True) as bar:

        def on_batch(rows: Tensor, probability: Tensor) -> None:
            check_finite(probability)
            maps = probability.squeeze(1) if probability.shape[1] == 1 else probability
            ids = [dataset.ids[row] for row in rows.tolist()]
            writer.append(ids, maps.cpu().numpy())
            measurement.add(rows, probability)
            if raters is not None:
                raters.add(ids, probability)
            bar.update(len(rows))

        return evaluator(dataset, on_batch)


def _measure_gates(network: MHSVM, run: TestRun, dataset: Dataset, ids: Sequence[str]) -> GateMaps:
    evaluator, unique = run.evaluator, tuple(dict.fromkeys(ids))
    return measure_gate_maps(
        network, dataset, unique, augment=evaluator.augment, gate=run.model["gate"], device=evaluator.device
    )


def _summarize(
    run: TestRun,
    scores: Scores,
    evaluation: Evaluation,
    measurement: Measurement,
    arguments: Arguments,
    *,
    raters: RaterScores | None,
) -> dict:
    """The content of summary.json; its keys keep this order."""
    content, native = describe_scores(scores, arguments), measurement.native
    content["metrics"] = {"loss": evaluation.loss, **content["metrics"]}
    described_native = None
    if native is not None:
        described_native = {**describe_scores(native.scores, arguments), "confusion_matrix": native.confusion.tolist()}
    device = run.evaluator.device
    return {
        **content,
        "confusion_matrix": evaluation.confusion.sum(dim=0).tolist(),
        "native": described_native,
        **({} if raters is None else {"raters": describe_raters(raters)}),
        "ranking": describe_ranking(measurement.ranking.counts, scores.occurring),
        **describe_calibration(measurement.calibration, num_classes=run.prepared.num_classes),
        "model": dict(run.model),
        "protocol": _describe_protocol(run, native=native is not None),
        "checkpoint": dict(run.checkpoint),
        "version": code_version(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "leakage": _measure_leakage(run, evaluation),
    }


def _describe_protocol(run: TestRun, *, native: bool) -> dict:
    prepared, protocol = run.prepared, run.protocol
    size = "{} x {}".format(*prepared.size)
    described = {"name": prepared.name, "checksum": prepared.checksum, "size": list(prepared.size)}
    return {
        "set": described | ({SYNTHETIC: True} if prepared.is_synthetic else {}),
        "split": protocol.split.name,
        "split_hash": protocol.split.hash,
        "reason": protocol.reason,
        "part": "test",
        "num_images": len(run.ids),
        "trained_on": protocol.trained_on,
        "chosen_on": protocol.chosen_on,
        "threshold": run.evaluator.threshold,
        "measured_at": f"{size} and native" if native else f"{size} only",
    }


def _measure_leakage(run: TestRun, evaluation: Evaluation) -> dict:
    """Metrics of all test images and of the unseen ones, whichever of the two the test measures."""
    left_out = [image_id for image_id in run.protocol.ids if image_id not in set(evaluation.ids)]
    every = evaluation.counts
    if left_out:
        rest = run.evaluator(load_dataset(run.prepared, left_out))
        every = torch.cat([every, rest.counts])
    unseen = evaluation.counts[torch.tensor([image_id not in run.leakage.seen for image_id in evaluation.ids])]
    return leakage_content(run.leakage, every=every, unseen=unseen, dropped=bool(left_out))
