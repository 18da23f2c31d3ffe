"""Compiled kernels on disk: found again, made again when damaged, and never read from a file of others."""

import io
import logging
import os
import pickle

import numpy as np
import pytest
from numba.core import config
from numba.core.event import Listener, install_listener

from mhsvm import ownership
from mhsvm.ops.scan.cpu import compiled, compiling_bar, kernel_cache
from mhsvm.ops.scan.cpu.compiled import launch

posix = pytest.mark.skipif(os.name != "posix", reason="modes are those of POSIX")


def twice(x, units, taken):
    x[0] = 2 * x[0]


class Compilations(Listener):
    def __init__(self):
        self.number = 0

    def on_start(self, event):
        self.number += 1

    def on_end(self, event):
        pass


@pytest.fixture(autouse=True)
def _fresh(monkeypatch, tmp_path):
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "cache"))
    kernel_cache._warn_once.cache_clear()
    compiling_bar._say_once.cache_clear()


def compilations():
    """Launch the kernel as a new process does; how often it was compiled."""
    compiled._COMPILED.pop(twice, None)
    x = np.array([21.0])
    with install_listener("numba:compile", Compilations()) as listener:
        launch(twice, {"x": x}, units=1, work=1)
    assert x[0] == 42
    return listener.number


def file_in(folder):
    (path,) = folder.rglob("twice-*.kernel")
    return path


def test_the_kernel_is_found_again(tmp_path):
    assert [compilations(), compilations()] == [1, 0]
    path = file_in(tmp_path)
    if os.name == "posix":
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["empty", "short", "truncated", "flipped", "other", "gone"])
def test_a_damaged_file_is_made_again(tmp_path, damage):
    compilations()
    path = file_in(tmp_path)
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    contents = {"empty": b"", "short": whole[:10], "truncated": whole[:-1], "flipped": flipped, "other": b"x" * 999}
    path.unlink() if damage == "gone" else path.write_bytes(contents[damage])
    assert [compilations(), compilations()] == [1, 0]
    # a pickle may differ, its size does not
    assert len(path.read_bytes()) == len(whole)


class Harmful:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


@posix
@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_is_not_read(tmp_path, caplog, mode):
    compilations()
    path = file_in(tmp_path)
    payload = pickle.dumps(Harmful())
    path.write_bytes(kernel_cache.hashlib.sha256(payload).digest() + payload)
    path.chmod(mode)
    assert compilations() == 1
    assert "others may have written it" in caplog.text
    assert path.stat().st_mode & 0o777 == 0o600
    assert compilations() == 0


@posix
@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777])
def test_a_folder_that_others_may_write_to_is_left(tmp_path, monkeypatch, caplog, mode):
    compilations()
    path = file_in(tmp_path)
    path.parent.chmod(mode)
    second = tmp_path / "second"
    second.mkdir()
    monkeypatch.setattr(kernel_cache, "_parents", lambda *arguments: [path.parent.parent, second])
    assert [compilations(), compilations()] == [1, 0]
    assert caplog.text.count("others may write to it") == 1
    assert file_in(second).is_file()


@posix
def test_a_folder_of_another_user_is_left(tmp_path, monkeypatch, caplog):
    compilations()
    owner = tmp_path.stat().st_uid
    folder = file_in(tmp_path).parent
    monkeypatch.setattr(kernel_cache.os, "getuid", lambda: owner + 1)
    # its name has another number, so others do not even meet; one that took the name is refused
    folder.rename(folder.with_name(f"mhsvm-{owner + 1}"))
    monkeypatch.setattr(ownership, "is_own", lambda status: status.st_uid == owner + 1)
    monkeypatch.setattr(kernel_cache, "_parents", lambda *arguments: [folder.parent])
    assert [compilations(), compilations()] == [1, 1]
    assert "others may write to it" in caplog.text


@posix
def test_a_link_is_not_followed(tmp_path, monkeypatch):
    elsewhere, parent = tmp_path / "elsewhere", tmp_path / "parent"
    elsewhere.mkdir(mode=0o700)
    parent.mkdir()
    (parent / f"mhsvm-{os.getuid()}").symlink_to(elsewhere)
    monkeypatch.setattr(kernel_cache, "_parents", lambda *arguments: [parent])
    assert compilations() == 1
    assert not any(elsewhere.iterdir())


def test_without_a_folder_kernels_are_compiled_in_every_process(tmp_path, monkeypatch, caplog):
    """No user, not even root, can create a folder below a file."""
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(kernel_cache, "_parents", lambda *arguments: [file / "cache"])
    assert [compilations(), compilations()] == [1, 1]
    assert caplog.text.count("set NUMBA_CACHE_DIR to a folder that can") == 1


def test_a_full_disk_costs_the_cache_only(tmp_path, monkeypatch, caplog):
    def full(path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("mhsvm.ops.kernel_files.replace_when_complete", full)
    with caplog.at_level(logging.WARNING):
        assert compilations() == 1
    assert "the compiled kernel twice cannot be kept" in caplog.text


def test_a_pipe_has_one_line(capsys):
    compilations()
    compiled._COMPILED.pop(twice)
    launch(twice, {"x": np.array([1.0], np.float32)}, units=1, work=1)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == "compiling for this processor (the first use only): this takes up to a minute\n"


def test_a_terminal_has_a_bar(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    compilations()
    shown = terminal.getvalue()
    assert "compiling for this processor (the first use only): twice" in shown
    # it is gone when the kernel is compiled
    assert shown.split("\r")[-1].strip() == ""
    length = len(shown)
    compilations()
    assert len(terminal.getvalue()) == length
