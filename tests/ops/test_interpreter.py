"""The Triton kernels on a machine without a GPU, in Triton's interpreter: their own tests, and the table's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

OPS = Path(__file__).parents[1]
# Files and what of them, for a process each: as many as a small machine has cores, and about as long.
SUITES = {
    "scans": (["triton/test_scan.py"], ""),
    "sequences": (["test_selective_scan.py"], "triton and (published or mixed or (compiles and True))"),
    "maps": (
        [
            "test_bce_dice.py",
            "test_bias_silu.py",
            "test_branches.py",
            "test_causal_conv1d.py",
            "test_group_norm.py",
            "test_layer_norm.py",
            "test_route_attention.py",
            "test_skip_bridge.py",
            "../layers/test_gated_scan.py",
        ],
        "triton or skip_bridge",
    ),
}


@pytest.fixture(scope="module")
def processes(_triton):
    """Triton reads the variable when it is imported: processes of its own, all at once."""
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    started = {
        suite: subprocess.Popen(
            [sys.executable, "-m", "pytest", *(str(OPS / file) for file in files), "-k", expression],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for suite, (files, expression) in SUITES.items()
    }
    yield started
    for process in started.values():
        process.kill()
        process.stdout.close()
        process.wait()


@pytest.mark.parametrize("suite", SUITES)
def test_in_interpreter(processes, suite):
    output, _ = processes[suite].communicate()
    assert processes[suite].returncode == 0, output
    assert "passed" in output
    assert "skipped" not in output or "MHSVM_SHARED" in output
