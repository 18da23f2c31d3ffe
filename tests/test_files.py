"""A file is complete or not there, whatever happens to the process that writes it."""

import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from mhsvm.files import full_disk_named, replace_when_complete, user_cache


def test_file_appears_at_the_end(tmp_path):
    path = tmp_path / "folder" / "file"
    with replace_when_complete(path) as partial:
        partial.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert list(path.parent.iterdir()) == [path]


def test_error_leaves_the_old_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def fail_halfway():
        with replace_when_complete(path) as partial:
            partial.write_text("new")
            raise RuntimeError("halfway")

    with pytest.raises(RuntimeError, match="halfway"):
        fail_halfway()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_next_run_removes_what_a_killed_one_left(tmp_path):
    killed = (
        "import os, signal, sys; from mhsvm.files import replace_when_complete\n"
        "with replace_when_complete(sys.argv[1]) as partial:\n"
        "    partial.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    path = tmp_path / "file"
    subprocess.run([sys.executable, "-c", killed, path], check=False)
    assert [each.name.endswith(".partial") for each in tmp_path.iterdir()] == [True]
    of_running_process = tmp_path / f".file.{socket.gethostname()}-{os.getppid()}.partial"
    of_other_host = tmp_path / ".file.another-host-1.partial"
    of_other_file = tmp_path / f".other.{socket.gethostname()}-999999999.partial"
    others = {of_running_process, of_other_host, of_other_file}
    for other in others:
        other.write_text("kept")
    with replace_when_complete(path) as partial:
        partial.write_text("whole")
    assert set(tmp_path.iterdir()) == others | {path}


@pytest.mark.parametrize("name", [None, ".a.txt.host-1.partial"])
def test_a_full_disk_is_reported_with_the_file(name):
    path = Path("results") / "a.txt"
    with pytest.raises(OSError, match=r"No space left on device: '.*a\.txt'"), full_disk_named(path):
        raise OSError(errno.ENOSPC, "No space left on device", name)
    with pytest.raises(FileNotFoundError, match=r"\.partial|None|gone"), full_disk_named(path):
        raise FileNotFoundError(errno.ENOENT, "gone", name)


def test_the_cache_of_a_user_without_a_home_folder_is_nowhere(monkeypatch):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert user_cache() == Path("/nonexistent/.cache/mhsvm")
