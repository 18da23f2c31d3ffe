"""Predictors of models in ONNX, which hold their own normalization."""

import hashlib
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor, nn

from mhsvm.assemble.members import check_members, choose_threshold
from mhsvm.export.onnx_model import OnnxModel
from mhsvm.files import StrPath
from mhsvm.inference.predictor import Predictor


class ExportedModel:
    """A model in ONNX as a member of a predictor; the attributes are those of `mhsvm.assemble.Trained`.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: See `mhsvm.export.onnx_model.OnnxModel`.
    """

    batch_size = 8
    # each normalizes its images itself, so that any can be averaged
    normalization = "its own"
    notes: tuple[str, ...] = ()

    def __init__(self, path: StrPath) -> None:
        self.model = OnnxModel(path)
        facts = self.model.facts
        self.path: Path = self.model.path
        self.name = str(self.path)
        self.size, self.num_classes = facts.size, facts.num_classes
        self.threshold = facts.threshold

    @cached_property
    def checksum(self) -> str:
        """sha256 of the file, in hex."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def describe(self) -> dict:
        """The facts about the file that a folder of predictions records."""
        return {"file": self.path.name, "sha256": self.checksum, "published": False, "size": list(self.size)}


class ExportedPredictor(Predictor):
    """A predictor of models in ONNX, run by ONNX Runtime on the CPU, by as many threads as torch uses.

    Args:
        members: The models.
        threshold, augmentation, largest_component, fill_holes: See `mhsvm.load_predictor`.
    Attributes:
        members: The models.
    Raises:
        ValueError: There is no model, they do not fit together, or the threshold is outside of 0..1.
    """

    def __init__(
        self,
        members: Sequence[ExportedModel],
        *,
        threshold: float | None = None,
        augmentation: str = "none",
        largest_component: bool = False,
        fill_holes: bool = False,
    ) -> None:
        check_members(members)
        super().__init__(
            [_Network(each.model) for each in members],
            normalize=_unchanged,
            size=members[0].size,
            threshold=choose_threshold(members, threshold),
            device=torch.device("cpu"),
            augmentation=augmentation,
            largest_component=largest_component,
            fill_holes=fill_holes,
        )
        self.members = tuple(members)

    def _probability(self, model: nn.Module, inputs: Tensor) -> Tensor:
        return model(inputs)


class _Network(nn.Module):
    """Images (b, 3, H, W), 0..255 -> probabilities (b, 1 or k, H, W)."""

    def __init__(self, model: OnnxModel) -> None:
        super().__init__()
        self._model = model

    def forward(self, images: Tensor) -> Tensor:
        levels = images.to(torch.uint8).permute(0, 2, 3, 1).contiguous()
        return torch.from_numpy(self._model(levels.numpy(), num_threads=torch.get_num_threads()))


def _unchanged(images: Tensor) -> Tensor:
    return images
