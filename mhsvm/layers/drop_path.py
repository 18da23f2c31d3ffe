"""Stochastic depth: in training, a residual branch is dropped at random for each sample."""

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero a branch with probability `rate` for each sample, and scale the others so that the mean stays the same.

    The rate is a tensor, so that torch.compile compiles one block for all rates. timm's `DropPath` has it as a number:
    for 12 rates a block was compiled 8 times and then reached the recompilation limit. It also uses other random
    numbers, so that older runs would not resume bit for bit, and requires torchvision.

    Args:
        rate: Probability in [0, 1).
    Raises:
        ValueError: The rate is out of range.
    Source: Huang et al. 2016, arXiv 1603.09382.
    """

    _keep: Tensor

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"the rate of dropped branches is at least 0 and below 1; received {rate}")
        self.rate = rate
        self._drops = rate > 0
        # a float32 scalar; not in checkpoints, since it follows from the arguments
        self.register_buffer("_keep", torch.tensor(1 - rate), persistent=False)

    def forward(self, branch: Tensor) -> Tensor:
        """(b, …) -> (b, …), of the same type."""
        if not (self.training and self._drops):
            return branch
        kept = torch.bernoulli(self._keep.expand(len(branch))) / self._keep
        return branch * kept.to(branch.dtype).view(-1, *[1] * (branch.ndim - 1))

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3g}"
