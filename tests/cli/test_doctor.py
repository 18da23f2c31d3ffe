import re

import pytest
import torch

from mhsvm.cli import machine_checks
from mhsvm.cli.main import main
from mhsvm.ops.backends import all_backends
from mhsvm.ops.scan import chunked
from tests.fixtures.backends import ScanBackend

REASON = "needs a unicorn, which is " + "far " * 20 + "away"


def crash(*arguments, **options):
    raise RuntimeError("illegal instruction\nat address 0")


def wrong(*arguments, **options):
    return chunked.selective_scan(*arguments, **options) + 1000


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(machine_checks, "SHAPE", machine_checks.ScanShape(2, 4, 9, 2))
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)
    # what a GPU would add depends on the machine
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_a_machine_in_good_health(set_scan_backends, capsys):
    set_scan_backends(ScanBackend("absent", chunked.selective_scan, unavailable_reason=lambda: REASON))
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for name in ("mhsvm", "commit", "python", "torch", "triton", "numba", "mamba_ssm", "causal_conv1d"):
        assert re.search(rf"^  {name} +\S", printed, re.MULTILINE)
    assert re.search(rf"^  torch +{re.escape(torch.__version__)}$", printed, re.MULTILINE)
    assert re.search(r"^  cpu +\S.*, \d+ processors, \d+ threads of torch, \d+ GiB$", printed, re.MULTILINE)
    assert f"cannot run: {REASON}" in re.sub(r"\s+", " ", printed)
    assert re.search(r"^  chunked +ok$", printed, re.MULTILINE)
    assert "on cpu: chunked" in printed
    checks = [line.split() for line in printed.splitlines() if line.startswith("cpu ")]
    names = [(type_, backend) for _, type_, backend, *_ in checks]
    # each twice: the scan, and the scan along routes
    assert names == [(t, b) for t in ("float32", "bfloat16") for b in ("chunked", "chunked", "reference", "reference")]
    assert all(line[-1] == "ok" for line in checks)
    assert max(map(len, printed.splitlines())) <= 100


@pytest.mark.parametrize(
    ("scan", "result"),
    [(crash, "FAILED: RuntimeError: illegal instruction"), (wrong, "WRONG: y")],
)
def test_a_check_that_fails_is_shown_and_told_by_the_status(set_scan_backends, capsys, scan, result):
    set_scan_backends(ScanBackend("ill", scan))
    assert main(["doctor"]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("cpu ")]
    assert [line.endswith(result) for line in lines if " ill " in line and "float32" in line] == [True, True]
    assert all(line.endswith("ok") for line in lines if " ill " not in line)


def test_what_the_environment_names(set_scan_backends, monkeypatch, capsys):
    set_scan_backends()
    monkeypatch.setenv("MHSVM_BACKEND", "reference")
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^  MHSVM_BACKEND +reference$", printed, re.MULTILINE)
    assert "on cpu: reference" in printed
    monkeypatch.setenv("MHSVM_BACKEND", "fast")
    assert main(["doctor"]) == 1
    printed = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert "on cpu: environment variable MHSVM_BACKEND: unknown name 'fast'; known are: auto, chunked, ref" in printed


def test_the_real_table_is_healthy_here(capsys):
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    for backend in all_backends():
        assert re.search(rf"^  {backend.name} +(ok|cannot run: \S)", printed, re.MULTILINE)


def test_it_takes_no_arguments(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["doctor", "now"])
    assert "unrecognized arguments: now" in capsys.readouterr().err
