"""Tests of a trained model: the set, what training has seen of it, and the evaluation."""

from collections.abc import Sequence

import torch

from mhsvm.assemble.data import build_augment, build_set
from mhsvm.assemble.networks import build_inference
from mhsvm.assemble.trained import Trained
from mhsvm.assemble.training import build_loss
from mhsvm.data.dataset import Dataset
from mhsvm.evaluation.tester import EvaluationJob
from mhsvm.leakage import Leakage, find_leakage
from mhsvm.prepare.sets import find_set, open_set
from mhsvm.store import PreparedSet


def build_test_set(trained: Trained, name_or_path: str) -> PreparedSet:
    """Open a set to test a checkpoint on; a folder that is used directly is prepared at the checkpoint's size.

    Raises:
        FileNotFoundError: There is none.
        ValueError: It cannot be used, or has another number of classes than the model.
    """
    prepared = open_set(find_set(name_or_path), size=trained.size, num_classes=trained.num_classes)
    if prepared.num_classes != trained.num_classes:
        raise ValueError(
            f"the masks of {prepared.path} have num_classes {prepared.num_classes} and the network of {trained.path} "
            f"has {trained.num_classes}: test it on a set with the classes that it was trained on"
        )
    return prepared


def build_leakage(trained: Trained, prepared: PreparedSet, test_ids: Sequence[str]) -> Leakage:
    """What a checkpoint has seen of test images, see `mhsvm.leakage.seen_images`."""
    return find_leakage(prepared, test_ids, recorded=trained.data, open_training_set=lambda: build_set(trained.config))


def build_evaluation(
    trained: Trained, dataset: Dataset, *, batch_size: int | None, device: torch.device
) -> EvaluationJob:
    """Everything that testing a checkpoint needs; `batch_size` None takes that of its config."""
    config, batch_size = trained.config, batch_size or trained.batch_size
    h, w = dataset.images.shape[1:3]
    return EvaluationJob(
        model=build_inference(trained.model, size=(h, w), batch_size=batch_size, captures=device.type == "cuda"),
        dataset=dataset,
        augment=build_augment(config, training=False, backend=trained.backend),
        loss=build_loss(config, backend=trained.backend).to(device),
        threshold=config.evaluation.threshold,
        batch_size=batch_size,
        device=device,
        tf32=config.train.tf32,
    )
