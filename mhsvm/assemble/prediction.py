"""Predictors of one trained model, or of several whose probabilities are averaged."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from mhsvm.assemble.data import build_augment
from mhsvm.assemble.devices import build_device
from mhsvm.assemble.networks import build_inference
from mhsvm.assemble.trained import Trained, load_trained
from mhsvm.data.split_file import Split
from mhsvm.inference.predictor import Predictor


class TrainedPredictor(Predictor):
    """A predictor that records the trained models that it consists of.

    Args:
        members: The trained models.
        arguments: See `Predictor`.
    """

    def __init__(self, members: Sequence[Trained], *arguments: object, **keywords: object) -> None:
        super().__init__(*arguments, **keywords)
        self.members = tuple(members)

    @property
    def origin(self) -> Trained:
        """Its trained model; for several, the first one with the training images of all of them."""
        first = self.members[0]
        if len(self.members) == 1:
            return first
        names = ", ".join(trained.name for trained in self.members)
        notes = dict.fromkeys(note for trained in self.members for note in trained.notes)
        return replace(first, data=_merge_data(self.members), notes=(f"averaged: {names}", *notes))


def load_predictor(
    path: str | Path | Sequence[str | Path],
    *,
    device: str = "auto",
    batch_size: int = 1,
    plugins: Sequence[str] = (),
    threshold: float | None = None,
    augmentation: str = "none",
    largest_component: bool = False,
    fill_holes: bool = False,
) -> TrainedPredictor:
    """Load a function from an image to its mask, from a checkpoint or from several whose probabilities are averaged.

    Args:
        path: Our checkpoint or a published one, a name from `mhsvm.list_pretrained()`, or a list of such.
        device: "auto", "cpu", "cuda", …
        batch_size: Images that a GPU computes at a time, as a CUDA graph; any number can be predicted.
        plugins: Modules of your own to import first, such as those that a checkpoint names; it imports none by itself.
        threshold: Probability at and above which a pixel is lesion; None takes the checkpoint's.
        augmentation: "none", "flips" or "turns": test-time augmentation, see `mhsvm.inference.tta.find_transforms`.
        largest_component: Keep the largest region of each class.
        fill_holes: Fill the background that a region encloses.
    Returns:
        A callable, see `mhsvm.inference.predictor.Predictor`.
    Raises:
        FileNotFoundError: There is no such file.
        ValueError: A file is no checkpoint, it names plugins that are not imported, several do not fit together, or
            the device is not available.
    """
    chosen = build_device(device)
    paths = [path] if isinstance(path, (str, os.PathLike)) else path
    return build_predictor(
        [load_trained(each, plugins=plugins, device=chosen) for each in paths],
        chosen,
        batch_size=batch_size,
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
) -> TrainedPredictor:
    """Build the predictor of loaded models, with the size, normalization and threshold of their training.

    On a GPU the models run as CUDA graphs of `batch_size` images; any number is predicted, batch by batch.

    Raises:
        ValueError: There is none, they do not fit together, or the threshold is outside of 0..1.
    """
    if not members:
        raise ValueError("a predictor needs at least one checkpoint; received none")
    for name, values in (
        ("image sizes", [trained.size for trained in members]),
        ("normalizations", [trained.config.data.normalization for trained in members]),
        ("numbers of classes", [trained.num_classes for trained in members]),
    ):
        _check_equal(name, members, values)
    if threshold is None:
        thresholds = [trained.config.evaluation.threshold for trained in members]
        _check_equal("thresholds", members, thresholds, remedy=" or give a threshold for all")
        threshold = thresholds[0]
    if not 0 <= threshold <= 1:
        raise ValueError(f"the threshold is a probability, 0 to 1; received {threshold}")
    size, captures = members[0].size, device.type == "cuda"
    return TrainedPredictor(
        members,
        [build_inference(trained.model, size=size, batch_size=batch_size, captures=captures) for trained in members],
        normalize=build_augment(members[0].config, training=False, backend=members[0].backend).normalize,
        size=size,
        threshold=threshold,
        device=device,
        augmentation=augmentation,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )


def _check_equal(name: str, members: Sequence[Trained], values: Sequence[object], *, remedy: str = "") -> None:
    for trained, value in zip(members, values, strict=True):
        if value != values[0]:
            raise ValueError(
                f"checkpoints that are averaged have equal {name}; received {members[0].name} with {values[0]} and "
                f"{trained.name} with {value}. Predict with each alone{remedy}"
            )


def _merge_data(members: Sequence[Trained]) -> dict | None:
    """The record of several trainings on one set: an image is a test image if it is one in all of them."""
    records: list[Mapping] = [trained.data for trained in members if trained.data is not None]
    if len(records) < len(members):
        return None
    _check_equal("training sets", members, [record["checksum"] for record in records])
    if len({record["split_hash"] for record in records}) == 1:
        return dict(records[0])
    parts = {
        image_id: part for part in ("test", "val", "train") for record in records for image_id in record[f"{part}_ids"]
    }
    split = Split("of several checkpoints", parts)
    ids = {f"{part}_ids": list(split.ids(part)) for part in ("train", "val", "test")}
    return {**records[0], "split": split.name, "split_hash": split.hash, **ids}
