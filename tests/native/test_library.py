"""The C engine is compiled once for a machine, and says why it cannot run."""

import ctypes
import os
import platform
import shutil
import subprocess

import pytest

from mhsvm.native import binary, library

needs_compiler = pytest.mark.skipif(library.find_compiler() is None, reason="needs a C compiler")


@pytest.fixture
def fresh(monkeypatch, tmp_path):
    """No library in this process's memory, no binary in the package, and an empty cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(binary, "FOLDER", tmp_path / "binaries")
    for function in (library._built, library._found):
        function.cache_clear()
    yield tmp_path / "mhsvm" / "native"
    for function in (library._built, library._found):
        function.cache_clear()


@pytest.fixture
def packaged(fresh):
    """A binary for this machine in the package, as the wheel has it; returns its path."""
    compiler, folder = library.find_compiler(), binary.FOLDER
    assert compiler is not None
    folder.mkdir()
    place = platform.system(), {"AMD64": "x86_64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    path = folder / next(
        x.file for x in binary.BINARIES if (x.system, x.machine, x.avx2) == (*place, binary.has_avx2())
    )
    library.compile_library(compiler, binary.SOURCE, path)
    binary.write_checksums(folder)
    return path


@needs_compiler
def test_the_binary_of_the_wheel_needs_no_compiler(fresh, packaged, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    assert library.unavailable_reason() is None
    assert library.origin() == f"the wheel's {packaged.name}"
    assert library.library().ultralight_rule(8).startswith(b"height and width are multiples of 32")
    assert not fresh.exists()


@needs_compiler
@pytest.mark.parametrize("damage", ["flipped", "missing", "another source", "table", "no library"])
def test_a_binary_that_is_not_the_recorded_one_is_not_loaded(fresh, packaged, caplog, damage):
    content, table = packaged.read_bytes(), packaged.with_name(binary.CHECKSUMS)
    if damage == "flipped":
        packaged.write_bytes(content[:99] + bytes([content[99] ^ 1]) + content[100:])
    elif damage == "missing":
        packaged.unlink()
    elif damage == "another source":
        table.write_text(table.read_text().replace(binary.source_checksum(), "0" * 64))
    elif damage == "table":
        table.write_text("nonsense\n")
    else:
        packaged.write_bytes(b"no library")
        table.unlink()
        binary.write_checksums(packaged.parent)
    # the compiler takes over, with a warning
    assert library.unavailable_reason() is None
    assert library.origin() == f"compiled by {library.find_compiler()}"
    (record,) = [x for x in caplog.records if x.levelname == "WARNING"]
    assert record.message.startswith("the C engine that came with the package is not used: ")
    expected = {"flipped": "is damaged: install the package again", "another source": "another version of the source"}
    assert expected.get(damage, "") in record.message


@needs_compiler
def test_it_is_compiled_once(fresh, caplog):
    caplog.set_level("INFO")
    assert library.unavailable_reason() is None
    (built,) = fresh.glob("*.so")
    assert caplog.messages == ["compiling the C engine for this processor, once"]
    state = built.stat().st_mtime_ns
    assert library.origin() == f"compiled by {library.find_compiler()}"
    library._built.cache_clear()
    assert library._built(library.find_compiler()) == built
    assert built.stat().st_mtime_ns == state
    assert isinstance(library.library(), ctypes.CDLL)
    assert len(caplog.messages) == 1


def test_without_a_compiler(fresh, monkeypatch):
    monkeypatch.setenv("CC", "no-such-compiler")
    reason = "CC names the C compiler 'no-such-compiler', and there is no such program: name another one, or unset CC"
    assert library.unavailable_reason() == reason
    with pytest.raises(ValueError, match="the C engine cannot run here: CC names the C compiler"):
        library.library()
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", str(fresh))
    assert library.find_compiler() is None
    assert library.missing_compiler() == "there is no C compiler: install gcc or clang, or name one in CC"


def test_the_compiler_can_have_arguments(fresh, monkeypatch, tmp_path):
    script = tmp_path / "the cc"
    script.write_text("#!/bin/sh\necho received $1 >&2\nexit 1\n")
    script.chmod(0o755)
    for named, received in ((f"'{script}' -m64", "-m64"), (str(script), "-std=c11")):
        library._found.cache_clear()
        monkeypatch.setenv("CC", named)
        assert f"failed: received {received}" in (library.unavailable_reason() or "")
    monkeypatch.setenv("CC", f"{script} '")
    assert library.find_compiler() is None


def test_a_compiler_that_fails_is_quoted(fresh, monkeypatch, tmp_path):
    script = tmp_path / "cc"
    script.write_text("#!/bin/sh\necho 'no space' >&2\nexit 1\n")
    script.chmod(0o755)
    monkeypatch.setenv("CC", str(script))
    assert library.unavailable_reason() == f"{script} failed: no space"
    assert not list(fresh.glob("*.so"))


@needs_compiler
@pytest.mark.parametrize("damage", ["empty", "truncated", "flipped", "writable by others", "no checksum"])
def test_a_library_that_is_damaged_or_of_others_is_compiled_again(fresh, damage):
    path = library._built(library.find_compiler())
    content = path.read_bytes()
    if damage == "writable by others":
        path.chmod(0o777)
    elif damage == "no checksum":
        library._checksum_path(path).unlink()
    else:
        changed = {"empty": b"", "truncated": content[:5000], "flipped": content[:99] + b"?" + content[100:]}
        path.unlink()
        path.write_bytes(changed[damage])
    library._built.cache_clear()
    assert not library._is_whole(path)
    assert library._built(library.find_compiler()) == path
    assert library._is_whole(path)
    assert library.unavailable_reason() is None


def test_a_folder_that_others_can_write_to_is_not_used(fresh):
    fresh.mkdir(parents=True)
    fresh.chmod(0o777)
    assert "others may write to it" in (library.unavailable_reason() or "")


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_source_has_no_warnings(compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"needs {compiler}")
    flags = ["-std=c11", "-O1", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    done = subprocess.run([compiler, *flags, os.fspath(binary.SOURCE)], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
