"""Predictors of one trained model, or of several whose probabilities are averaged."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch

from mhsvm.assemble.data import build_augment
from mhsvm.assemble.devices import build_device
from mhsvm.assemble.exported_models import ExportedModel, ExportedPredictor
from mhsvm.assemble.members import check_equal, check_members, choose_threshold
from mhsvm.assemble.networks import build_inference
from mhsvm.assemble.trained import Trained, load_trained
from mhsvm.data.split_file import Split
from mhsvm.export.onnx_model import is_onnx
from mhsvm.files import StrPath
from mhsvm.inference.predictor import Predictor


class TrainedPredictor(Predictor):
    """A predictor of loaded models, with the size, normalization and threshold of their training.

    On a GPU the models run as CUDA graphs of `batch_size` images; any number is predicted, batch by batch.

    Args:
        members: The trained models, on `device`.
        device: The device of the models.
        batch_size: Images per batch of the graphs.
        threshold, augmentation, largest_component, fill_holes: See `load_predictor`.
    Attributes:
        members: The trained models.
    Raises:
        ValueError: There is no model, they do not fit together, or the threshold is outside of 0..1.
    """

    def __init__(
        self,
        members: Sequence[Trained],
        device: torch.device,
        *,
        batch_size: int = 1,
        threshold: float | None = None,
        augmentation: str = "none",
        largest_component: bool = False,
        fill_holes: bool = False,
    ) -> None:
        check_members(members)
        size, captures = members[0].size, device.type == "cuda"
        super().__init__(
            [build_inference(each.model, size=size, batch_size=batch_size, captures=captures) for each in members],
            normalize=build_augment(members[0].config, training=False, backend=members[0].backend).normalize,
            size=size,
            threshold=choose_threshold(members, threshold),
            device=device,
            augmentation=augmentation,
            largest_component=largest_component,
            fill_holes=fill_holes,
        )
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
    path: StrPath | Sequence[StrPath],
    *,
    device: str = "auto",
    batch_size: int = 1,
    plugins: Sequence[str] = (),
    threshold: float | None = None,
    augmentation: str = "none",
    largest_component: bool = False,
    fill_holes: bool = False,
) -> TrainedPredictor | ExportedPredictor:
    """Load a function from an image to its mask, from a checkpoint or from several whose probabilities are averaged.

    Args:
        path: Our checkpoint or a published one, a name from `mhsvm.list_pretrained()`, a model in ONNX that
            `mhsvm export` has written, or a list of such.
        device: "auto", "cpu", "cuda", …; models in ONNX are run on the CPU.
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
    return open_predictor(
        [path] if isinstance(path, (str, os.PathLike)) else path,
        device=device,
        batch_size=batch_size,
        plugins=plugins,
        threshold=threshold,
        augmentation=augmentation,
        largest_component=largest_component,
        fill_holes=fill_holes,
    )


def open_predictor(
    paths: Sequence[StrPath],
    *,
    device: str = "auto",
    batch_size: int | None = None,
    gate_threshold: float | None = None,
    backend: str | None = None,
    plugins: Sequence[str] = (),
    **choices: Any,
) -> TrainedPredictor | ExportedPredictor:
    """As `load_predictor`, with the choices of `load_trained`; by default with the batch size of the first checkpoint.

    Raises:
        FileNotFoundError, ValueError: See `load_predictor`.
    """
    if any(is_onnx(path) for path in paths):
        _check_exported(paths, device=device, gate_threshold=gate_threshold, backend=backend)
        return ExportedPredictor([ExportedModel(path) for path in paths], **choices)
    chosen = build_device(device)
    members = [
        load_trained(path, gate_threshold=gate_threshold, backend=backend, plugins=plugins, device=chosen)
        for path in paths
    ]
    return TrainedPredictor(members, chosen, batch_size=batch_size or members[0].batch_size, **choices)


def _check_exported(
    paths: Sequence[StrPath], *, device: str, gate_threshold: float | None, backend: str | None
) -> None:
    others = [str(path) for path in paths if not is_onnx(path)]
    if others:
        raise ValueError(
            f"models in ONNX are averaged with each other only; received {others[0]} beside them. Name the checkpoints "
            "that they were exported from"
        )
    if gate_threshold is not None:
        raise ValueError("models in ONNX have no gate: leave `gate_threshold` out")
    if backend is not None:
        raise ValueError("models in ONNX are run by ONNX Runtime: leave `backend` out")
    if device not in ("auto", "cpu"):
        raise ValueError(f"models in ONNX are run on the CPU; received `device` {device}: leave it out")


def _merge_data(members: Sequence[Trained]) -> dict | None:
    """The record of several trainings on one set: an image is a test image if it is one in all of them."""
    records: list[Mapping] = [trained.data for trained in members if trained.data is not None]
    if len(records) < len(members):
        return None
    check_equal("training sets", members, [record["checksum"] for record in records])
    if len({record["split_hash"] for record in records}) == 1:
        return dict(records[0])
    parts = {
        image_id: part for part in ("test", "val", "train") for record in records for image_id in record[f"{part}_ids"]
    }
    split = Split("of several checkpoints", parts)
    ids = {f"{part}_ids": list(split.ids(part)) for part in ("train", "val", "test")}
    return {**records[0], "split": split.name, "split_hash": split.hash, **ids}
