"""The Triton kernels on a machine without a GPU, in Triton's interpreter: their own tests, and the table's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPS = Path(__file__).parents[1]
SUITES = {
    "test_layer_norm.py": "triton",
    "test_group_norm.py": "triton",
    "test_branches.py": "triton",
    "triton/test_scan.py": "",
    "test_selective_scan.py": "triton and (published or mixed or (compiles and True))",
    "test_route_attention.py": "triton",
    "test_causal_conv1d.py": "triton",
    "test_skip_bridge.py": "",
    "test_bce_dice.py": "triton",
}


@pytest.fixture(scope="module")
def processes(_triton):
    """Triton reads the variable when it is imported: a process of its own for each suite, all at once."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    started = {
        file: subprocess.Popen(
            [sys.executable, "-m", "pytest", str(OPS / file), "-k", expression],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for file, expression in SUITES.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("file", SUITES)
def test_in_interpreter(processes, file):
    output, _ = processes[file].communicate()
    assert processes[file].returncode == 0, output
    assert "passed" in output
    assert "skipped" not in output or "MHSVM_SHARED" in output
