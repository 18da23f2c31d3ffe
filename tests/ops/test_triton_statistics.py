"""The statistics over routes on a machine without a GPU: the table's tests once more, in Triton's interpreter."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with torch on Linux only")
def test_route_statistics_in_tritons_interpreter():
    tests = Path(__file__).with_name("test_route_statistics.py")
    command = [sys.executable, "-m", "pytest", "-k", "triton", str(tests)]
    run = subprocess.run(command, env={**os.environ, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout
    assert "passed" in run.stdout
