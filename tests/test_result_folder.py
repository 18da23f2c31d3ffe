"""Results replace older results of their kind, and no file that this program did not write."""

import errno
import os
import socket
import subprocess
import sys

import pytest

from mhsvm.result_folder import ResultFolder

RESULTS = ResultFolder(
    kind="a test", main="summary.json", mark=b'"schema"', others=("cases.csv", "log.txt", "figures/*.png")
)
SUMMARY = '{"schema": 2, "content": "%s"}'


def write(folder, content="new", *, figures=("a",), log=True):
    with RESULTS.replace(folder) as partial:
        (partial / "cases.csv").write_text(content)
        (partial / "summary.json").write_text(SUMMARY % content)
        if log:
            (partial / "log.txt").write_text(content)
        if figures:
            (partial / "figures").mkdir()
        for name in figures:
            (partial / f"figures/{name}.png").write_text(content)


def contents(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_older_results_are_replaced_as_a_whole(tmp_path):
    folder = tmp_path / "below" / "test"
    write(folder, "old", figures=("a", "b"))
    write(folder, "new", figures=("c",), log=False)
    assert contents(folder) == {"cases.csv": "new", "summary.json": SUMMARY % "new", "figures/c.png": "new"}
    write(folder, "newer", figures=())
    assert sorted(os.listdir(folder)) == ["cases.csv", "log.txt", "summary.json"]
    assert os.listdir(folder.parent) == ["test"]


@pytest.mark.parametrize("entry", ["thesis.txt", "notes/", "figures/mine.svg", "notes/cases.csv", "figures/deep/a.png"])
def test_a_foreign_file_or_folder_is_named_and_kept(tmp_path, entry):
    write(tmp_path / "test", "old")
    foreign = tmp_path / "test" / entry
    if entry.endswith("/"):
        foreign.mkdir()
    else:
        foreign.parent.mkdir(exist_ok=True)
        foreign.write_text("mine")
    before = contents(tmp_path)
    shown = {"notes/cases.csv": "notes", "figures/deep/a.png": "figures/deep"}.get(entry, entry.rstrip("/"))
    with pytest.raises(FileExistsError, match=f"test holds more than a test, {shown}, and nothing of it is removed"):
        write(tmp_path / "test")
    assert contents(tmp_path) == before
    assert foreign.exists()


def test_a_foreign_file_that_comes_during_the_work_stays(tmp_path):
    folder = tmp_path / "test"
    write(folder, "old")
    with RESULTS.replace(folder) as partial:
        (partial / "summary.json").write_text(SUMMARY % "new")
        (folder / "thesis.txt").write_text("mine")
        (folder / "figures" / "mine.svg").write_text("mine")
    assert contents(folder) == {"summary.json": SUMMARY % "new", "thesis.txt": "mine", "figures/mine.svg": "mine"}


@pytest.mark.parametrize(
    "files",
    [
        {"cases.csv": "mine"},
        {"log.txt": "mine"},
        {"summary.json": "{}", "cases.csv": "mine"},
        {"summary.json": "", "cases.csv": ""},
        {"thesis.txt": "mine"},
        {".hidden": "mine"},
    ],
)
def test_what_is_no_older_result_is_refused(tmp_path, files):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(
        FileExistsError, match="exists and is not the folder of a test: choose another one with `folder`"
    ):
        write(tmp_path)
    assert contents(tmp_path) == files
    with pytest.raises(FileExistsError, match="is a file, not a folder: choose another one with `folder`"):
        write(tmp_path / next(iter(files)))


def test_files_that_systems_put_into_folders_stay(tmp_path):
    write(tmp_path, "old")
    (tmp_path / ".DS_Store").write_text("icons")
    (tmp_path / "figures" / "Thumbs.db").write_text("icons")
    write(tmp_path, "new", figures=())
    assert contents(tmp_path).keys() == {".DS_Store", "figures/Thumbs.db", "cases.csv", "summary.json", "log.txt"}


def test_links_are_followed_to_the_folder_and_not_replaced_in_it(tmp_path):
    target, link, elsewhere = tmp_path / "target", tmp_path / "link", tmp_path / "elsewhere"
    target.mkdir()
    elsewhere.mkdir()
    (elsewhere / "a.png").write_text("mine")
    link.symlink_to(target)
    write(link, "old")
    write(link, "new")
    assert link.is_symlink()
    assert contents(target)["cases.csv"] == "new"
    assert sorted(os.listdir(tmp_path)) == ["elsewhere", "link", "target"]
    (target / "figures/a.png").unlink()
    (target / "figures").rmdir()
    (target / "figures").symlink_to(elsewhere)
    with pytest.raises(FileExistsError, match="link holds more than a test, figures"):
        write(link)
    assert (elsewhere / "a.png").read_text() == "mine"


def test_the_current_folder_and_a_folder_that_cannot_be_renamed(tmp_path, monkeypatch):
    folder = tmp_path / "test"
    folder.mkdir()
    monkeypatch.chdir(folder)
    number, replace = folder.stat().st_ino, os.replace

    def refuse_folders(source, target):
        # as for the place where a file system is mounted
        assert not os.path.isdir(source)
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse_folders)
    for content in ("old", "new"):
        write(folder, content)
        write(type(folder)("."), content)
    assert folder.stat().st_ino == number
    assert contents(folder)["cases.csv"] == "new"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_older_results_or_no_folder(tmp_path, error):
    def fail():
        with RESULTS.replace(tmp_path / "test") as partial:
            (partial / "cases.csv").write_text("half")
            raise error

    pytest.raises(error, fail)
    assert not (tmp_path / "test").exists()
    write(tmp_path / "test", "old")
    before = contents(tmp_path)
    pytest.raises(error, fail)
    assert contents(tmp_path) == before


def test_a_process_killed_between_the_files_can_be_repeated(tmp_path, monkeypatch):
    folder = tmp_path / "test"
    write(folder, "old")
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    # what is left: no main file, some files of the new results, the others in the hidden folder
    (folder / "summary.json").unlink()
    stale = folder / f".results.{socket.gethostname()}-{process.pid}.partial"
    stale.mkdir()
    (stale / "summary.json").write_text(SUMMARY % "half")
    write(folder, "new")
    assert contents(folder).keys() == {"cases.csv", "summary.json", "log.txt", "figures/a.png"}


def test_a_full_disk_is_reported_with_the_folder_and_older_results_stay(tmp_path):
    write(tmp_path / "test", "old")

    def fill():
        with RESULTS.replace(tmp_path / "test") as partial:
            (partial / "cases.csv").write_text("new")
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"No space left on device: '.*test'"):
        fill()
    assert contents(tmp_path / "test")["cases.csv"] == "old"


def test_a_link_to_nothing_is_refused(tmp_path):
    folder = tmp_path / "test"
    folder.symlink_to("nowhere")
    with pytest.raises(FileExistsError, match="test is a link to nothing"):
        RESULTS.check(folder)
