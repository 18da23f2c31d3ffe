"""A file is complete or not there, whatever happens to the process that writes it."""

import os
import socket
import subprocess
import sys

import pytest

from mhsvm.files import check_only_holds, replace_folder_when_complete, replace_when_complete


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


def test_a_folder_is_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "below" / "test"
    for content in ("old", "new"):
        with replace_folder_when_complete(folder) as partial:
            assert partial.parent == folder.parent
            (partial / f"{content}.txt").write_text(content)
            (partial / "figures").mkdir()
            assert not (folder / "new.txt").exists()
    assert sorted(path.name for path in folder.iterdir()) == ["figures", "new.txt"]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_folder_that_fails_leaves_the_older_one(tmp_path, error):
    folder = tmp_path / "test"
    with replace_folder_when_complete(folder) as partial:
        (partial / "old.txt").write_text("old")

    def fail():
        with replace_folder_when_complete(folder) as partial:
            (partial / "half.txt").write_text("half")
            raise error

    pytest.raises(error, fail)
    assert [path.name for path in folder.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [folder]


def test_the_folder_of_a_killed_process_is_removed(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    stale = tmp_path / f".test.{socket.gethostname()}-{process.pid}.partial"
    (stale / "figures").mkdir(parents=True)
    with replace_folder_when_complete(tmp_path / "test"):
        assert not stale.exists()


def test_only_older_results_are_replaced(tmp_path):
    folder = tmp_path / "scores"
    check_only_holds(folder, ("cases.csv",), "scores")
    folder.mkdir()
    for name in ("cases.csv", "a.png", "b.png"):
        (folder / name).touch()
    check_only_holds(folder, ("cases.csv", "*.png"), "scores")
    with pytest.raises(
        FileExistsError, match=r"scores holds more than scores, such as a\.png: choose another output folder"
    ):
        check_only_holds(folder, ("cases.csv",), "scores")
    with pytest.raises(FileExistsError, match=r"cases\.csv is a file: choose another output folder"):
        check_only_holds(folder / "cases.csv", ("cases.csv",), "scores")
