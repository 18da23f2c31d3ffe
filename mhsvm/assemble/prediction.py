"""Predictors of one trained model, or of several together."""

import os
from collections.abc import Sequence
from pathlib import Path

import torch

from mhsvm.assemble.data import build_augment
from mhsvm.assemble.devices import build_device
from mhsvm.assemble.networks import build_inference
from mhsvm.assemble.trained import Trained, load_trained
from mhsvm.inference.predictor import Predictor
from mhsvm.models.pretrained import find_pretrained, list_pretrained


def load_predictor(
    path: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    threshold: float | None = None,
    augmentation: str = "none",
    largest_component: bool = False,
    fill_holes: bool = False,
) -> Predictor:
    """A function from an image to its mask, from a checkpoint or from several whose probabilities are averaged.

    Args:
        path: Our checkpoint or a published one, a name from `mhsvm.list_pretrained()`, or a list of such.
        device: "auto", "cpu", "cuda", …
        threshold: Probability from which a pixel is lesion; None takes the checkpoint's.
        augmentation: "none", or "flips" or "turns" to average over mirrored and turned views.
        largest_component: Keep the largest region of each class.
        fill_holes: Fill the background that a region encloses.
    Returns:
        A callable, see `mhsvm.inference.predictor.Predictor`.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is no checkpoint, several do not go together, or the device is not there.
    """
    chosen = build_device(device)
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    return build_predictor(
        [load_trained(_find(each), device=chosen) for each in paths],
        chosen,
        threshold=threshold,
        augmentation=augmentation,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )


def build_predictor(
    members: Sequence[Trained],
    device: torch.device,
    *,
    batch_size: int = 1,
    threshold: float | None = None,
    augmentation: str = "none",
    largest_component: bool = False,
    fill_holes: bool = False,
) -> Predictor:
    """The predictor of loaded models: size, normalisation and threshold are those that they were trained with.

    On a GPU the models run as CUDA graphs of `batch_size` images; any number is predicted, batch by batch.

    Raises:
        ValueError: There is none, they do not go together, or the threshold lies outside 0..1.
    """
    if not members:
        raise ValueError("a predictor needs at least one checkpoint; received none")
    for what, values in (
        ("image sizes", [trained.size for trained in members]),
        ("normalisations", [trained.config.data.normalization for trained in members]),
        ("numbers of classes", [trained.num_classes for trained in members]),
    ):
        _check_equal(what, members, values)
    if threshold is None:
        thresholds = [trained.config.evaluation.threshold for trained in members]
        _check_equal("thresholds", members, thresholds, way_out=" or give a threshold for all")
        threshold = thresholds[0]
    if not 0 <= threshold <= 1:
        raise ValueError(f"the threshold is a probability, 0 to 1; received {threshold}")
    size, captures = members[0].size, device.type == "cuda"
    return Predictor(
        [build_inference(trained.model, size=size, batch_size=batch_size, captures=captures) for trained in members],
        normalize=build_augment(members[0].config, training=False).normalize,
        size=size,
        threshold=threshold,
        device=device,
        augmentation=augmentation,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )


def _check_equal(what: str, members: Sequence[Trained], values: Sequence[object], *, way_out: str = "") -> None:
    for trained, value in zip(members, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"checkpoints that are averaged have equal {what}; received {members[0].path} with {values[0]} and "
                f"{trained.path} with {value}. Predict with each alone{way_out}"
            )


def _find(path: str | Path) -> Path:
    named = str(path) in list_pretrained() and not Path(path).exists()
    return find_pretrained(str(path)).path if named else Path(path)
