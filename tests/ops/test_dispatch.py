import logging

import pytest
import torch

from mhsvm.ops import dispatch as backends
from mhsvm.ops import list_backends, selective_scan
from mhsvm.ops.dispatch import Backend, all_backends, choose_backend
from mhsvm.ops.scan import chunked, reference

U, A = torch.ones(1, 1, 3), -torch.ones(1, 1)


@pytest.fixture(autouse=True)
def _untouched_environment(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    backends._log_choice.cache_clear()
    backends._warn_of_missing.cache_clear()


@pytest.fixture
def set_table(monkeypatch):
    """Puts rows in front of the two that run everywhere, so that a test does not depend on this machine."""
    always = (Backend("chunked", chunked.selective_scan), all_backends()[-1])

    def put(*rows: Backend) -> None:
        monkeypatch.setattr(backends, "_BACKENDS", rows + always)

    return put


@pytest.fixture
def _two_more_rows(set_table):
    """A backend that cannot run here, and one that cannot take these inputs."""
    set_table(
        Backend("absent", chunked.selective_scan, unavailable_reason=lambda: "needs a unicorn"),
        Backend("picky", chunked.selective_scan, unsupported_reason=lambda u, A: f"u is {u.dtype}"),
    )


def test_the_plain_ones_run_everywhere():
    assert list_backends()[-2:] == ("chunked", "reference")
    assert choose_backend("reference", U, A).selective_scan is reference.selective_scan


def test_order_of_the_table():
    order = ("triton", "mamba_ssm", "cpu", "chunked", "reference")
    names = [backend.name for backend in all_backends()]
    assert names == [name for name in order if name in names]
    assert {"mamba_ssm", "chunked", "reference"} <= set(names)


def test_automatic_choice_is_never_the_reference():
    assert [backend.name for backend in all_backends() if not backend.automatic] == ["reference"]


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


@pytest.mark.usefixtures("_two_more_rows")
def test_unknown_name_lists_the_known():
    known = "auto, absent, picky, chunked, reference"
    with pytest.raises(ValueError, match=f"backend: unknown name 'cuda'; known are: {known}"):
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
def test_environment_variable_may_leave_it_automatic(monkeypatch, set_table, value):
    set_table()
    monkeypatch.setenv("MHSVM_BACKEND", value)
    assert choose_backend("auto", U, A).name == "chunked"


def test_automatic_choice_is_logged_once(set_table, caplog):
    set_table()
    with caplog.at_level(logging.INFO, logger="mhsvm.ops.dispatch"):
        for _ in range(3):
            selective_scan(U, U, A, U, U)
    assert caplog.messages == ["selective scan on cpu: backend 'auto' chose 'chunked'"]


@pytest.mark.parametrize(("expected_on", "warnings"), [("cpu", 1), ("cuda", 0), (None, 0)])
def test_a_fast_backend_that_should_run_here_and_cannot_is_warned_of_once(set_table, caplog, expected_on, warnings):
    rows = {"absent": expected_on, "present": "cpu"}
    reasons = {"absent": "needs a C compiler", "present": None}
    set_table(
        *(
            Backend(
                name,
                chunked.selective_scan,
                unavailable_reason=lambda reason=reasons[name]: reason,
                expected_on=device_type,
            )
            for name, device_type in rows.items()
        )
    )
    for u in (U, U, U.double()):
        selective_scan(u, U, A, U, U)
    message = "selective scan on cpu: the fast backend 'absent' cannot run: needs a C compiler"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        message
    ] * warnings
