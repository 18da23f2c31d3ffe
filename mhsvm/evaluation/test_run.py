"""The model and the images of a test, before anything is measured."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import nn

from mhsvm.evaluation.evaluator import Evaluator
from mhsvm.evaluation.protocol import Protocol
from mhsvm.leakage import Leakage
from mhsvm.store import PreparedSet

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TestRun:
    """A model, the images that test it, and the facts that a reader of the result has to know.

    Attributes:
        evaluator: The model and its settings.
        network: The same model outside of any CUDA graph, so that hooks can observe its gates.
        model: Name and arguments of the network, as the summary records them.
        checkpoint: File, sha256, origin and image size of the checkpoint, as the summary records them.
        prepared: The open set of the test.
        protocol: The test images and the reason for their choice.
        leakage: Test images that were seen in training.
        drop_seen: Measure only the images that were not seen.
    """

    evaluator: Evaluator
    network: nn.Module
    model: Mapping
    checkpoint: Mapping
    prepared: PreparedSet
    protocol: Protocol
    leakage: Leakage
    drop_seen: bool = False

    @property
    def ids(self) -> tuple[str, ...]:
        """The images that are measured."""
        if not self.drop_seen:
            return self.protocol.ids
        return tuple(image_id for image_id in self.protocol.ids if image_id not in self.leakage.seen)

    def without_seen(self) -> "TestRun":
        """The same test without the images that were seen in training.

        Raises:
            ValueError: The seen images are not known, or no others are left.
        """
        if self.leakage.unknown is not None:
            raise ValueError(f"the images to drop are not known: {self.leakage.unknown}. Leave `drop_seen` out")
        unseen = replace(self, drop_seen=True)
        num_all, num_left = len(self.protocol.ids), len(unseen.ids)
        if not num_left:
            raise ValueError(f"the checkpoint has seen all {num_all} test images: name another split with `split`")
        log.info("left out: %d, measured: %d", num_all - num_left, num_left)
        return unseen
