"""Backends that are wrong on purpose, for a table of few and quick ones."""

import pytest
import torch

from mhsvm.ops.scan import chunked
from tests.fixtures.backends import ScanBackend


@pytest.fixture
def wrong_gradient() -> ScanBackend:
    """Right but for the gradient of B, which is twice too large."""

    def scan(u, delta, A, B, *arguments):
        return chunked.selective_scan(u, delta, A, 2 * B - B.detach(), *arguments)

    return ScanBackend("wrong", scan)


@pytest.fixture
def not_a_number() -> ScanBackend:
    """Gives NaN in one place."""

    def scan(u, *arguments):
        y = chunked.selective_scan(u, *arguments)
        return y + torch.where(torch.arange(y.numel(), device=y.device).view_as(y) == 0, torch.nan, 0.0).to(y.dtype)

    return ScanBackend("nan", scan)
