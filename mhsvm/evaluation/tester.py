"""Testing: every image of a part once, its probabilities kept on the disk."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from tqdm import tqdm

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.evaluator import Evaluation, evaluate
from mhsvm.evaluation.measurement import Measurement
from mhsvm.inference.probability import check_finite
from mhsvm.runtime.numerics import numerics
from mhsvm.store import PredictionWriter


@dataclass(frozen=True)
class EvaluationJob:
    """The objects and settings of a test; see `mhsvm.evaluation.evaluator.evaluate` and `mhsvm.runtime.numerics`."""

    model: nn.Module
    dataset: Dataset
    augment: Augment
    loss: nn.Module
    threshold: float
    batch_size: int
    device: torch.device
    tf32: bool = False


def evaluate_and_keep(job: EvaluationJob, predictions: PredictionWriter, measurement: Measurement) -> Evaluation:
    """Evaluate, and measure and write the probabilities of each batch as it comes.

    Raises:
        ValueError: The model's output is not finite.
    """
    with tqdm(total=len(job.dataset), unit="img", disable=None, dynamic_ncols=True) as bar:

        def on_batch(rows: Tensor, probability: Tensor) -> None:
            check_finite(probability)
            maps = probability.squeeze(1) if probability.shape[1] == 1 else probability
            predictions.append([job.dataset.ids[row] for row in rows.tolist()], maps.cpu().numpy())
            measurement.add(rows, probability)
            bar.update(len(rows))

        return evaluate_job(job, on_batch)


def evaluate_job(job: EvaluationJob, on_batch: Callable[[Tensor, Tensor], None] | None = None) -> Evaluation:
    """Evaluate alone; see `mhsvm.evaluation.evaluator.evaluate`."""
    # what else a test measures may have no deterministic algorithm
    with numerics(tf32=job.tf32, deterministic=False):
        return evaluate(
            job.model,
            job.dataset,
            augment=job.augment,
            loss=job.loss,
            threshold=job.threshold,
            batch_size=job.batch_size,
            device=job.device,
            on_batch=on_batch,
        )
