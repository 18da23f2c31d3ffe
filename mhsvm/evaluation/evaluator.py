"""From logits to probabilities, masks and counts.

Shape letters: n images, b images of a batch, k classes, c scored classes, h w the size in pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import iterate_batches
from mhsvm.inference.probability import probabilities, to_mask
from mhsvm.metrics import class_counts, count_pairs, summarize
from mhsvm.runtime.distributed import ALONE, World
from mhsvm.runtime.numerics import numerics

OnBatch = Callable[[Tensor, Tensor], None]


@dataclass(frozen=True)
class Evaluation:
    """Counts and loss of a model on a data set.

    Attributes:
        ids: Names of the n images.
        confusion: int64 (n, 2, 2), or (n, k, k) for k classes, see `mhsvm.metrics.confusion_matrices`.
        loss: Mean loss per image.
    """

    ids: tuple[str, ...]
    confusion: Tensor
    loss: float

    @property
    def counts(self) -> Tensor:
        """int64 (n, c, 4): tp, fp, fn, tn of each image and scored class; c is 1, or k - 1 for k classes."""
        return class_counts(self.confusion)

    def metrics(self) -> dict[str, float]:
        """The loss, and the metrics that `mhsvm.metrics.summarize` computes from the counts."""
        return {"loss": self.loss, **summarize(self.counts)}


@dataclass(frozen=True)
class Evaluator:
    """A model and the settings of its evaluation; see `evaluate_model` and `mhsvm.runtime.numerics`."""

    model: nn.Module
    augment: Augment
    loss: nn.Module
    threshold: float
    batch_size: int
    device: torch.device
    tf32: bool = False

    def __call__(self, dataset: Dataset, on_batch: OnBatch | None = None) -> Evaluation:
        """Evaluate every image of a data set once, in one process."""
        # metrics computed in `on_batch` may have no deterministic algorithm
        with numerics(tf32=self.tf32, deterministic=False):
            return evaluate_model(
                self.model,
                dataset,
                augment=self.augment,
                loss=self.loss,
                threshold=self.threshold,
                batch_size=self.batch_size,
                device=self.device,
                on_batch=on_batch,
            )


def target_masks(masks: Tensor, num_classes: int) -> Tensor:
    """Turn stored masks into targets: lesion at half coverage and above; class indices stay as they are."""
    return (masks >= 128).to(torch.uint8) if num_classes == 1 else masks


@torch.inference_mode()
def evaluate_model(
    model: nn.Module,
    dataset: Dataset,
    *,
    augment: Augment,
    loss: nn.Module,
    threshold: float,
    batch_size: int,
    device: torch.device,
    on_batch: OnBatch | None = None,
    world: World = ALONE,
) -> Evaluation:
    """Evaluate every image of a data set once; several processes divide the images, and each gets the whole result.

    Args:
        model: Returns logits (b, 1 or k, h, w); left in evaluation mode.
        dataset: At least one image.
        augment: Normalizes; its augmentation is "none".
        loss: (logits, targets) -> mean over the batch.
        threshold: Probability at and above which a pixel is lesion.
        batch_size: Images per batch.
        device: The device of the model.
        on_batch: Called with rows (b,) and probabilities (b, 1 or k, h, w) of each batch of this process.
        world: The processes.
    """
    model.eval()
    # counts and float64 losses stay on the device until the end, so that no batch synchronizes
    size = max(dataset.num_classes, 2)
    counts = [torch.zeros(0, size, size, dtype=torch.int64, device=device)]
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    own_rows = world.shard(torch.arange(len(dataset)))
    # with fewer images than processes, some processes have none
    batches = iterate_batches(dataset, own_rows, batch_size=batch_size, device=device) if len(own_rows) else ()
    for batch in batches:
        inputs, targets = augment(batch.images, batch.masks)
        logits = model(inputs)
        probability = probabilities(logits)
        target = target_masks(batch.masks, dataset.num_classes)
        counts.append(count_pairs(to_mask(probability, threshold), target, num_classes=dataset.num_classes))
        loss_sum += loss(logits, targets).double() * len(batch.rows)
        if on_batch is not None:
            on_batch(batch.rows, probability)
    # the shards of the processes are in the order of the ranks
    matrices, losses = zip(*world.gather((torch.cat(counts).cpu(), loss_sum.item())), strict=True)
    return Evaluation(ids=dataset.ids, confusion=torch.cat(matrices), loss=sum(losses) / len(dataset))
