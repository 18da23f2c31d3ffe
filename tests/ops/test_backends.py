import logging

import pytest
import torch

from mhsvm.ops import backends, chunked, list_backends, reference, selective_scan
from mhsvm.ops.backends import Backend, choose_backend

U, A = torch.ones(1, 1, 3), -torch.ones(1, 1)


@pytest.fixture(autouse=True)
def _untouched_environment(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    backends._log_choice.cache_clear()


@pytest.fixture
def _two_more_rows(monkeypatch):
    """In front of the table: a backend that cannot run here, and one that cannot take these inputs."""
    rows = (
        Backend("absent", chunked.selective_scan, unavailable_reason=lambda: "needs a unicorn"),
        Backend("picky", chunked.selective_scan, unsupported_reason=lambda u, A: f"u is {u.dtype}"),
    )
    monkeypatch.setattr(backends, "_BACKENDS", rows + backends._BACKENDS)


def test_names():
    assert list_backends() == ("chunked", "reference")
    assert choose_backend("reference", U, A).selective_scan is reference.selective_scan


def test_automatic_choice_is_never_the_reference():
    assert choose_backend("auto", U, A).name == "chunked"


@pytest.mark.usefixtures("_two_more_rows")
def test_automatic_choice_passes_over_what_cannot_run():
    assert choose_backend("auto", U, A).name == "chunked"
    assert list_backends() == ("picky", "chunked", "reference")


@pytest.mark.usefixtures("_two_more_rows")
def test_named_backend_that_cannot_run_says_why():
    with pytest.raises(
        ValueError, match="backend: 'absent' cannot run: needs a unicorn; use one of: auto, chunked, reference"
    ):
        choose_backend("absent", U, A)
    with pytest.raises(ValueError, match="backend: 'picky' cannot run: u is torch.float32"):
        choose_backend("picky", U, A)


def test_unknown_name_lists_the_known():
    with pytest.raises(ValueError, match="backend: unknown name 'cuda'; known are: auto, chunked, reference"):
        selective_scan(U, U, A, U, U, backend="cuda")


def test_environment_variable_decides_for_auto(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert choose_backend("auto", U, A).name == "reference"


def test_argument_outweighs_environment_variable(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert choose_backend("chunked", U, A).name == "chunked"


def test_environment_variable_is_named_when_wrong(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "fast")
    with pytest.raises(ValueError, match="environment variable MHSVM_BACKEND: unknown name 'fast'"):
        choose_backend("auto", U, A)


@pytest.mark.parametrize("value", ["", "auto"])
def test_environment_variable_may_leave_it_automatic(monkeypatch, value):
    monkeypatch.setenv("MHSVM_BACKEND", value)
    assert choose_backend("auto", U, A).name == "chunked"


def test_automatic_choice_is_logged_once(caplog):
    with caplog.at_level(logging.INFO, logger="mhsvm.ops.backends"):
        for _ in range(3):
            selective_scan(U, U, A, U, U)
    assert caplog.messages == ["selective scan on cpu: backend 'auto' chose 'chunked'"]
