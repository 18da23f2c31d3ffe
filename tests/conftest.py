import os
from pathlib import Path

# Before torch is loaded: on tensors as small as the tests', sharing out costs more than it gains.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of the published models' numbers and of real images, named by MHSVM_SHARED."""
    folder = os.environ.get("MHSVM_SHARED")
    if not folder:
        reason = "needs the shared fixtures: set MHSVM_SHARED to their folder"
        if os.environ.get("MHSVM_REQUIRE_SHARED"):
            pytest.fail(reason)
        pytest.skip(reason)
    return Path(folder)
