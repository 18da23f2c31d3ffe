"""The Triton scans on a machine without a GPU, in Triton's interpreter: their own tests, and the table's."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch on Linux only")


@pytest.mark.parametrize(
    ("files", "expression"),
    [
        (["triton/test_scan.py"], ""),
        (["test_selective_scan.py"], "triton and (published or mixed or (compiles and True))"),
    ],
)
def test_in_interpreter(files, expression):
    # Triton reads the variable when it is imported: a process of its own.
    command = [sys.executable, "-m", "pytest", *(str(HERE.parent / file) for file in files), "-k", expression]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "passed" in run.stdout
    assert "skipped" not in run.stdout or "MHSVM_SHARED" in run.stdout
