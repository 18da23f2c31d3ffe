import inspect
import logging

import pytest
import torch

from mhsvm.ops import backends, dispatch, list_backends, selective_scan
from mhsvm.ops.backends import Backend, all_backends, register_backend
from mhsvm.ops.dispatch import Operation, all_operations, left_to_compiler
from mhsvm.ops.scan import chunked, reference
from mhsvm.ops.scan.selective_scan import SELECTIVE_SCAN
from tests.fixtures.backends import ScanBackend

U, A = torch.ones(1, 1, 3), -torch.ones(1, 1)
ARGUMENTS = (U, U, A, U, U)


@pytest.fixture(autouse=True)
def _untouched(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    monkeypatch.setattr(dispatch, "_reported", set())
    monkeypatch.setattr(dispatch, "_OPERATIONS", dict(dispatch._OPERATIONS))
    monkeypatch.setattr(backends, "_BACKENDS", all_backends())


@pytest.fixture
def _two_more_rows(set_scan_backends):
    """A backend that cannot run here, and one that cannot take these inputs."""
    set_scan_backends(
        ScanBackend("absent", chunked.selective_scan, unavailable_reason=lambda: "needs a unicorn"),
        ScanBackend("picky", chunked.selective_scan, unsupported_reason=lambda u, *rest, **more: f"u is {u.dtype}"),
    )


def chosen(backend):
    return SELECTIVE_SCAN.choose(backend, *ARGUMENTS).backend


def test_the_plain_ones_run_everywhere():
    assert list_backends()[-3:] == ("chunked", "portable", "reference")
    assert SELECTIVE_SCAN.choose("reference", *ARGUMENTS).run is reference.selective_scan


def test_order_of_the_table():
    assert [row.name for row in all_backends()] == [
        "cuda",
        "triton",
        "mamba_ssm",
        "native",
        "cpu",
        "chunked",
        "portable",
        "reference",
    ]
    scans = [row.name for row in all_backends() if row.name != "native"]
    assert [x.backend for x in SELECTIVE_SCAN.implementations()] == scans


def test_rows_that_are_chosen_by_name_only():
    assert [row.name for row in all_backends() if not row.automatic] == ["portable", "reference"]


@pytest.mark.usefixtures("_two_more_rows")
def test_automatic_choice_passes_over_what_cannot_run():
    assert chosen("auto") == "chunked"
    assert list_backends() == ("picky", "chunked", "reference")


@pytest.mark.usefixtures("_two_more_rows")
def test_named_backend_that_cannot_run_says_why():
    with pytest.raises(
        ValueError,
        match="backend: 'absent' cannot run selective_scan: needs a unicorn; use one of: auto, chunked, reference",
    ):
        chosen("absent")
    with pytest.raises(ValueError, match="backend: 'picky' cannot run selective_scan: u is torch.float32"):
        chosen("picky")


@pytest.mark.usefixtures("_two_more_rows")
def test_unknown_name_lists_the_known():
    known = "auto, absent, picky, chunked, reference"
    with pytest.raises(ValueError, match=f"backend: unknown name 'cuda'; known are: {known}"):
        selective_scan(*ARGUMENTS, backend="cuda")


def test_environment_variable_decides_for_auto(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert chosen("auto") == "reference"


def test_argument_outweighs_environment_variable(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert chosen("chunked") == "chunked"


def test_environment_variable_is_named_when_wrong(monkeypatch):
    monkeypatch.setenv("MHSVM_BACKEND", "fast")
    with pytest.raises(ValueError, match="environment variable MHSVM_BACKEND: unknown name 'fast'"):
        chosen("auto")


@pytest.mark.parametrize("value", ["", "auto"])
def test_environment_variable_may_leave_it_automatic(monkeypatch, set_scan_backends, value):
    set_scan_backends()
    monkeypatch.setenv("MHSVM_BACKEND", value)
    assert chosen("auto") == "chunked"


def test_automatic_choice_is_logged_once(set_scan_backends, toy, caplog):
    set_scan_backends(ScanBackend("toy", chunked.selective_scan))
    with caplog.at_level(logging.INFO, logger="mhsvm.ops.dispatch"):
        for _ in range(3):
            selective_scan(*ARGUMENTS)
            toy("auto", U)
    assert caplog.messages == ["backend 'auto' on cpu: chose 'toy', first for selective_scan"]


def test_each_operation_is_logged_for_those_who_look_closely(toy, caplog):
    with caplog.at_level(logging.DEBUG, logger="mhsvm.ops.dispatch"):
        toy("auto", U)
        toy("auto", [U, U])
        toy("auto", U, factor=0)
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.DEBUG] == [
        "scale on cpu: backend 'auto' chose 'toy'",
        "scale on cpu: backend 'auto' chose 'reference'",
    ]


@pytest.mark.parametrize(("expected_on", "warnings"), [("cpu", 1), ("cuda", 0), (None, 0)])
def test_a_fast_backend_that_should_run_here_and_cannot_is_warned_of_once(
    set_scan_backends, caplog, expected_on, warnings
):
    set_scan_backends(
        ScanBackend("absent", chunked.selective_scan, lambda: "needs a C compiler", expected_on=expected_on),
        ScanBackend("present", chunked.selective_scan, expected_on="cpu"),
    )
    for u in (U, U, U.double()):
        selective_scan(u, U, A, U, U)
    message = "backend 'auto' on cpu: the fast backend 'absent' cannot run: needs a C compiler"
    assert [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING] == [
        message
    ] * warnings


@pytest.fixture
def toy():
    """An operation and a backend from outside the package, each added by one call."""
    register_backend(Backend("toy"))
    operation = Operation("scale", lambda x, factor=2: (x if torch.is_tensor(x) else x[0]) * factor)
    operation.register(
        "toy",
        lambda x, factor=2: torch.full_like(U, 10.0 * factor),
        unsupported_reason=lambda x, factor=2: "its factors are positive" if factor < 0 else None,
        worthwhile=lambda x, factor=2: factor != 0,
        traceable=False,
    )
    return operation


@pytest.mark.parametrize(
    ("requested", "factor", "expected"),
    [
        ("auto", 2, 20.0),
        # cannot run, and is not worthwhile
        ("auto", -1, -1.0),
        ("auto", 0, 0.0),
        ("toy", 2, 20.0),
        ("toy", 0, 0.0),
        ("reference", 2, 2.0),
        # does not implement this operation
        ("chunked", 2, 2.0),
    ],
)
def test_an_operation_from_outside(toy, requested, factor, expected):
    assert (toy(requested, U, factor) == expected).all()
    assert toy.choose("toy", U, 0).backend == "toy"
    assert toy in dispatch.all_operations()


def test_a_named_backend_refuses_what_it_cannot_take(toy):
    with pytest.raises(ValueError, match="'toy' cannot run scale: its factors are positive; use one of: auto, ref"):
        toy("toy", U, factor=-1)


def test_what_the_compiler_does_not_know_is_left_to_it(toy):
    for backend in ("auto", "toy"):
        with left_to_compiler():
            assert toy.choose(backend, U).backend == "reference"
        compiled = torch.compile(lambda x, name=backend: toy(name, x), backend="aot_eager", fullgraph=True)
        assert (compiled(U) == 2).all()
        assert (toy(backend, U) == 20).all()


def test_a_backend_from_outside_scans(monkeypatch):
    register_backend(Backend("mine"), before="chunked")
    assert [row.name for row in all_backends()] == [
        "cuda",
        "triton",
        "mamba_ssm",
        "native",
        "cpu",
        "mine",
        "chunked",
        "portable",
        "reference",
    ]
    monkeypatch.setattr(SELECTIVE_SCAN, "_implementations", dict(SELECTIVE_SCAN._implementations))
    SELECTIVE_SCAN.register("mine", lambda u, *rest: u + 5)
    assert (selective_scan(*ARGUMENTS, backend="mine") == 6).all()


def test_names_that_are_taken():
    with pytest.raises(
        ValueError,
        match="'cpu' is taken; known are: cuda, triton, mamba_ssm, native, cpu, chunked, portable, reference",
    ):
        register_backend(Backend("cpu"))
    with pytest.raises(ValueError, match="'auto' is taken"):
        register_backend(Backend("auto"))
    with pytest.raises(ValueError, match="no backend is named 'fast'"):
        register_backend(Backend("mine"), before="fast")
    message = "'selective_scan' is that of mhsvm.ops.scan.reference.selective_scan, so .*<lambda> needs another"
    with pytest.raises(ValueError, match=message):
        Operation("selective_scan", lambda x: x)
    message = "'chunked' has the implementation mhsvm.ops.scan.chunked.selective_scan, and .*<lambda> needs another"
    with pytest.raises(ValueError, match=message):
        SELECTIVE_SCAN.register("chunked", lambda u: u)
    with pytest.raises(ValueError, match="'reference' has the implementation mhsvm.ops.scan.reference.selective_scan"):
        SELECTIVE_SCAN.register("reference", lambda u: u)
    with pytest.raises(ValueError, match="selective_scan: unknown name 'mine'; .* add it by register_backend first"):
        SELECTIVE_SCAN.register("mine", lambda u: u)


@pytest.mark.parametrize("operation", all_operations(), ids=lambda operation: operation.name)
def test_reasons_take_the_arguments_of_the_operation_by_position_and_by_name(operation):
    # The first argument is always given by position.
    run = operation.reference.run if operation.name != "linear" else operation.implementation("triton").run
    given = getattr(run, "keywords", {})
    parameters = [p for p in inspect.signature(run).parameters.values() if p.name not in given]
    by_name = dict.fromkeys(p.name for p in parameters[1:])
    positional = [p for p in parameters if p.kind is p.POSITIONAL_OR_KEYWORD]
    keyword_only = dict.fromkeys(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)
    for implementation in operation.implementations():
        for decide in filter(None, (implementation.unsupported_reason, implementation.worthwhile)):
            inspect.signature(decide).bind(None, **by_name)
            inspect.signature(decide).bind(*positional, **keyword_only)
