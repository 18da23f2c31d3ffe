"""The Triton kernels on a machine without a GPU, in Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
# Folders or files and a selection of their tests, for one process each; they take about the same time.
SUITES = {
    "scans": (["ops/scan/triton"], []),
    "sequences": (
        ["ops/scan/test_selective_scan.py", "ops/routes"],
        ["-k", "triton and (published or mixed or (compiles and True) or test_route_attention)"],
    ),
    "fused": (["ops/fused", "layers", "models/test_backend_argument.py"], ["-m", "interpreter"]),
}
# pytest-xdist and pytest-benchmark, if installed, warn of each other, and warnings are errors.
PLUGINS = ("-p", "no:xdist", "-p", "no:benchmark", "-p", "no:cacheprovider")


@pytest.fixture(scope="module")
def processes(_triton):
    """A process for each suite, all at once: Triton reads the variable when it is imported."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["TRITON_INTERPRET"] = "1"
    started = {
        suite: subprocess.Popen(
            [sys.executable, "-m", "pytest", *PLUGINS, *(str(TESTS / path) for path in paths), *selection],
            env=environment,
            cwd=TESTS.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for suite, (paths, selection) in SUITES.items()
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
