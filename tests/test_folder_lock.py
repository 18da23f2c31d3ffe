"""A folder is held by one process, and a lock ends with it."""

import errno
import os
import signal
import socket
import subprocess
import sys

import pytest

from mhsvm import folder_lock
from mhsvm.folder_lock import FolderLock

HOLD = (
    "import sys; from mhsvm.folder_lock import FolderLock\n"
    "with FolderLock('a training') as lock:\n"
    "    lock.hold(sys.argv[1]); print('held', flush=True); sys.stdin.read()"
)


def test_the_second_is_refused_with_number_and_host_until_the_first_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
        assert first.stdout.readline() == b"held\n"
        message = f"^a training is running in {tmp_path}, process {first.pid} on {socket.gethostname()}: wait for it"
        for _ in range(2):
            with FolderLock("a training") as lock, pytest.raises(ValueError, match=message):
                lock.hold(tmp_path)
        first.send_signal(signal.SIGKILL)
        first.wait()
        with FolderLock("a training") as lock:
            lock.hold(tmp_path)
            assert (tmp_path / ".lock").read_text() == f"process {os.getpid()} on {socket.gethostname()}"


def test_one_lock_holds_a_folder_once_and_lets_it_go(tmp_path):
    link = tmp_path / "link"
    (tmp_path / "folder").mkdir()
    link.symlink_to(tmp_path / "folder")
    with FolderLock("a training") as lock:
        assert lock.hold(tmp_path / "folder") == lock.hold(link)
        with FolderLock("a sweep") as other, pytest.raises(ValueError, match="a sweep is running in .*link, process"):
            other.hold(link)
    with FolderLock("a sweep") as other:
        other.hold(link)


def test_a_file_system_without_locks_is_a_warning(tmp_path, monkeypatch, caplog):
    def refuse(file):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(folder_lock, "_lock_file", refuse)
    with FolderLock("a training") as lock:
        lock.hold(tmp_path)
    assert "cannot be locked (No locks available)" in caplog.text
