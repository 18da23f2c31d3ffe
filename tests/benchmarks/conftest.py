"""Backends that are wrong on purpose, and a table of few and quick ones."""

from collections.abc import Callable

import pytest
import torch

from mhsvm.ops import dispatch as backends
from mhsvm.ops.dispatch import Backend, all_backends
from mhsvm.ops.scan import chunked


@pytest.fixture
def set_table(monkeypatch) -> Callable[..., None]:
    """Puts rows in front of the two that run everywhere, so that a test does not depend on this machine."""
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    always = (Backend("chunked", chunked.selective_scan), all_backends()[-1])

    def put(*rows: Backend) -> None:
        monkeypatch.setattr(backends, "_BACKENDS", rows + always)

    return put


@pytest.fixture
def wrong_gradient() -> Backend:
    """Right but for the gradient of B, which is twice too large."""

    def scan(u, delta, A, B, *arguments):
        return chunked.selective_scan(u, delta, A, 2 * B - B.detach(), *arguments)

    return Backend("wrong", scan)


@pytest.fixture
def not_a_number() -> Backend:
    """Gives NaN in one place."""

    def scan(u, *arguments):
        y = chunked.selective_scan(u, *arguments)
        return y + torch.where(torch.arange(y.numel(), device=y.device).view_as(y) == 0, torch.nan, 0.0).to(y.dtype)

    return Backend("nan", scan)
