from pathlib import Path

import pytest

from tests.fixtures.predicted import has_lesion


@pytest.fixture
def checkpoint(make_set, make_checkpoint) -> Path:
    """A checkpoint whose predictions have lesions."""
    return make_checkpoint(make_set(), change=has_lesion)
