"""One full disk; `python -m tests.faults full_disk --count 20` makes many, in every command."""

import sys

import pytest

from tests.faults import full_disk


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files as POSIX does")
def test_prepare_ends_with_a_message_and_without_a_crash(tmp_path):
    assert full_disk.run(count=1, seed=0, folder=tmp_path, commands=("prepare",)) == {"prepare": {"refused": 1}}
