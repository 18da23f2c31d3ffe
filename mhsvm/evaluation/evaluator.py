"""From logits to probabilities, masks and counts. The threshold is applied here and nowhere else."""

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


@dataclass(frozen=True)
class Evaluation:
    """What a model did on a data set.

    Attributes:
        ids: Names of the n images.
        confusion: int64 (n, 2, 2), or (n, k, k) for k classes, see `mhsvm.metrics.confusion_matrices`.
        loss: Mean loss an image.
    """

    ids: tuple[str, ...]
    confusion: Tensor
    loss: float

    @property
    def counts(self) -> Tensor:
        """int64 (n, c, 4): tp, fp, fn, tn of each image and scored class; c is 1, or k - 1 for k classes."""
        return class_counts(self.confusion)

    def figures(self) -> dict[str, float]:
        """The loss and what `mhsvm.metrics.summarize` makes of the counts."""
        return {"loss": self.loss, **summarize(self.counts)}


def truth_of(masks: Tensor, num_classes: int) -> Tensor:
    """Stored masks -> what a prediction is compared with: lesion from half coverage on, class indices as they are."""
    return (masks >= 128).to(torch.uint8) if num_classes == 1 else masks


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    dataset: Dataset,
    *,
    augment: Augment,
    loss: nn.Module,
    threshold: float,
    batch_size: int,
    device: torch.device,
    on_batch: Callable[[Tensor, Tensor], None] | None = None,
    world: World = ALONE,
) -> Evaluation:
    """Run a model over every image of a data set once; several processes share them, and each gets the whole result.

    Args:
        model: Returns logits; left in evaluation mode.
        dataset: At least one image.
        augment: Normalises; it moves nothing here.
        loss: (logits, targets) -> mean over the batch.
        threshold: Probability from which a pixel is lesion.
        batch_size: Images at a time.
        device: Where the model is.
        on_batch: Called with rows (b,) and probabilities (b, 1 or k, h, w) of each batch of this process.
        world: The processes.
    """
    model.eval()
    # counts and losses, in float64, stay on the device until the end: nothing waits for a batch
    size = max(dataset.num_classes, 2)
    counts = [torch.zeros(0, size, size, dtype=torch.int64, device=device)]
    loss_sum = torch.zeros((), dtype=torch.float64, device=device)
    own_rows = world.shard(torch.arange(len(dataset)))
    # of fewer images than there are processes, some get none
    batches = iterate_batches(dataset, own_rows, batch_size=batch_size, device=device) if len(own_rows) else ()
    for batch in batches:
        inputs, targets = augment(batch.images, batch.masks)
        logits = model(inputs)
        probability = probabilities(logits)
        truth = truth_of(batch.masks, dataset.num_classes)
        counts.append(count_pairs(to_mask(probability, threshold), truth, num_classes=dataset.num_classes))
        loss_sum += loss(logits, targets).double() * len(batch.rows)
        if on_batch is not None:
            on_batch(batch.rows, probability)
    # shares are pieces in the order of the processes
    matrices, losses = zip(*world.gather((torch.cat(counts).cpu(), loss_sum.item())), strict=True)
    return Evaluation(ids=dataset.ids, confusion=torch.cat(matrices), loss=sum(losses) / len(dataset))
