"""Machine code on disk: compiled once, whole, and this user's own. The compiler is replaced."""

import logging
import threading
import time
from dataclasses import replace

import pytest

from mhsvm.ops.cuda import cubins
from mhsvm.ops.cuda.cubins import Variant, cubin, is_kept


class Compiler:
    version = (13, 0)

    def __init__(self) -> None:
        self.calls: list[tuple] = []

    def compile(self, source, name, options, headers):
        self.calls.append((source, name, tuple(options), dict(headers)))
        time.sleep(0.01)
        return f"code {len(self.calls)}".encode()


@pytest.fixture
def compiler(tmp_path, monkeypatch):
    compiler = Compiler()
    monkeypatch.setattr(cubins, "load_nvrtc", lambda: compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    cubins._folder.cache_clear()
    yield compiler
    cubins._folder.cache_clear()
    cubins._texts.cache_clear()


@pytest.fixture
def variant(tmp_path) -> Variant:
    (tmp_path / "run.cu").write_text("a kernel", encoding="utf-8")
    (tmp_path / "own.cuh").write_text("a header", encoding="utf-8")
    return Variant(tmp_path / "run.cu", "run", (("N", 16),), 32, 1024)


def test_the_compiler_gets_source_headers_and_constants(compiler, variant):
    assert cubin(variant, 90) == b"code 1"
    source, name, options, headers = compiler.calls[0]
    assert (source, name, headers) == ("a kernel", "run.cu", {"own.cuh": "a header"})
    assert {"-arch=sm_90", "-DN=16", "-DSHARED_BYTES=1024"} <= set(options)


def test_a_kernel_is_compiled_once_for_an_architecture(compiler, variant):
    assert not is_kept(variant, 90)
    codes = [cubin(variant, architecture) for architecture in (90, 90, 80, 90)]
    assert codes == [b"code 1", b"code 1", b"code 2", b"code 1"]
    assert is_kept(variant, 90)


@pytest.mark.parametrize("changed", ["run.cu", "own.cuh", "constant", "version"])
def test_what_changes_the_code_is_compiled_again(compiler, variant, changed):
    cubin(variant, 90)
    if changed == "constant":
        variant = replace(variant, constants=(("N", 32),))
    elif changed == "version":
        compiler.version = (13, 1)
    else:
        (variant.source.parent / changed).write_text("other", encoding="utf-8")
        cubins._texts.cache_clear()
    assert cubin(variant, 90) == b"code 2"


def test_a_damaged_file_is_compiled_again(compiler, variant):
    cubin(variant, 90)
    (path,) = cubins._folder().iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    assert not is_kept(variant, 90)
    assert cubin(variant, 90) == b"code 2"


def test_threads_compile_a_kernel_once(compiler, variant):
    threads = [threading.Thread(target=cubin, args=(variant, 90)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(compiler.calls) == 1


def test_a_folder_that_others_may_write_to_is_left(compiler, variant, tmp_path, caplog):
    folder = tmp_path / "cache" / "mhsvm" / "cuda"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    with caplog.at_level(logging.WARNING):
        assert [cubin(variant, 90), cubin(variant, 90)] == [b"code 1", b"code 2"]
    assert caplog.text.count("is not used for compiled kernels") == 1
    assert not list(folder.iterdir())
