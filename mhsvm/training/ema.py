"""The moving average of a network's weights over the steps of a training."""

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class ModelAverage:
    """Exponential moving average of weights: w <- decay * w + (1 - decay) * (the weights after a step).

    Torch's own `AveragedModel` counts its updates on the CPU, so that it cannot be part of a CUDA graph; this one uses
    torch's update alone.

    Args:
        model: Its weights are averaged, from those it has now on; its buffers are copied.
        decay: Weight of the old average in each step, in (0, 1).
    Raises:
        ValueError: The decay is outside of (0, 1).
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"the decay of a moving average is between 0 and 1, such as 0.999; received {decay}")
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self._update = get_ema_multi_avg_fn(decay)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of `model` after a step."""
        self._update(list(self.model.parameters()), list(model.parameters()), None)
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
