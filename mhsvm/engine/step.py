"""One step of the optimiser, over one or several batches."""

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from mhsvm.data.augment import Augment
from mhsvm.data.dataset import Dataset
from mhsvm.data.loader import iterate_batches


class NonFiniteLoss(RuntimeError):
    """The loss of a batch is NaN or infinite; the weights have not been touched.

    Args:
        value: The loss.
        rows: Positions of the batch's images in the data set.
    """

    def __init__(self, value: float, rows: Tensor) -> None:
        super().__init__(f"the loss is {value}")
        self.value = value
        self.rows = rows


def optimizer_step(
    model: nn.Module,
    optimizer: Optimizer,
    dataset: Dataset,
    rows: Tensor,
    motions: Tensor,
    *,
    augment: Augment,
    loss: nn.Module,
    batch_size: int,
    clip_norm: float,
    precision: torch.dtype,
    device: torch.device,
) -> float:
    """Step once with the mean gradient over `rows` (n,), computed `batch_size` images at a time.

    The network runs in `precision` (float32, or a 16-bit type under autocast), the loss in float32.

    Returns:
        The mean loss of these images before the step.
    Raises:
        NonFiniteLoss: Before the step, so that the weights stay as they were.
    """
    optimizer.zero_grad(set_to_none=True)
    total = 0.0
    batches = iterate_batches(dataset, rows, batch_size=batch_size, device=device)
    for batch, batch_motions in zip(batches, motions.split(batch_size), strict=True):
        inputs, targets = augment(batch.images, batch.masks, batch_motions)
        with torch.autocast(device.type, dtype=precision, enabled=precision != torch.float32):
            logits = model(inputs)
        # a batch weighs as much as it has images: the last one may be smaller
        share = loss(logits, targets) * (len(batch.rows) / len(rows))
        value = share.item()
        if not torch.isfinite(share):
            raise NonFiniteLoss(value, batch.rows)
        share.backward()
        total += value
    if clip_norm > 0:
        nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
    optimizer.step()
    return total
