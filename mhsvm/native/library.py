"""The C engine as a shared library: the wheel's own, else compiled at first use and kept in the user's cache."""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from mhsvm.files import replace_when_complete, user_cache
from mhsvm.native.binary import SOURCE, find_binary, has_avx2
from mhsvm.ownership import is_own, make_own_folder
from mhsvm.text_file import read_text, write_text

log = logging.getLogger(__name__)

# -ffast-math would break the rounding of the exponential; with -std=c11, gcc fuses no product with a sum by itself
FLAGS = ("-std=c11", "-O3", "-ffp-contract=fast", "-fPIC", "-shared")
AVX2_FLAGS = ("-mavx2", "-mfma")
_TIMEOUT_S = 120


def unavailable_reason() -> str | None:
    """Why the engine cannot run on this machine, or None if it can; compiles it if that was not done before."""
    found = _found()
    return found if isinstance(found, str) else None


def library() -> ctypes.CDLL:
    """The loaded engine.

    Raises:
        ValueError: It cannot run here; the reason is given.
    """
    found = _found()
    if isinstance(found, str):
        raise ValueError(f"the C engine cannot run here: {found}")
    return found[0]


def origin() -> str:
    """Where the loaded engine is from, in a few words; there is one."""
    found = _found()
    assert not isinstance(found, str)
    return found[1]


@cache
def _found() -> tuple[ctypes.CDLL, str] | str:
    """The engine and its origin: the wheel's, else a compiled one; or the reason why there is none."""
    if sys.byteorder != "little":
        return "it reads numbers of little-endian processors"
    try:
        path = find_binary()
        if path is not None:
            return load(path), f"the wheel's {path.name}"
    except (OSError, ValueError) as error:
        log.warning("the C engine that came with the package is not used: %s", error)
    if os.name != "posix":
        return f"it is compiled at first use on Linux and macOS only; this is {platform.system()}"
    compiler = find_compiler()
    if compiler is None:
        return missing_compiler()
    try:
        return load(_built(compiler)), f"compiled by {compiler}"
    except (OSError, ValueError) as error:
        return str(error)


def find_compiler() -> str | None:
    """The C compiler that CC names, else the machine's, as words of a shell; None if there is none."""
    named = os.environ.get("CC", "").strip()
    if not named:
        found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
        return found and shlex.quote(found)
    program = shutil.which(named)
    if program is not None:
        return shlex.quote(program)
    # such as "ccache gcc" or "gcc -m64"
    try:
        first, *arguments = shlex.split(named)
    except ValueError:
        return None
    program = shutil.which(first)
    return program and shlex.join([program, *arguments])


def missing_compiler() -> str:
    """Why `find_compiler` finds none, and the remedy."""
    named = os.environ.get("CC", "").strip()
    if named:
        return f"CC names the C compiler {named!r}, and there is no such program: name another one, or unset CC"
    return "there is no C compiler: install gcc or clang, or name one in CC"


@cache
def _built(compiler: str) -> Path:
    """The library, compiled for this processor unless it is in the cache."""
    sources = (SOURCE, SOURCE.with_suffix(".h"))
    version = compiler.encode() + _run([*shlex.split(compiler), "--version"]).stdout
    # a home folder may be shared by machines
    machine = platform.machine().encode()
    described = (*(path.read_bytes() for path in sources), version, str(compile_flags()).encode(), machine)
    digest = hashlib.sha256(b"\0".join(described)).hexdigest()[:16]
    path = _own_folder() / f"ultralight-{digest}.so"
    if not _is_whole(path):
        log.info("compiling the C engine for this processor, once")
        with replace_when_complete(path) as partial:
            compile_library(compiler, SOURCE, partial)
            partial.chmod(0o700)
            content = partial.read_bytes()
        write_text(_checksum_path(path), hashlib.sha256(content).hexdigest() + "\n")
    return path


def _own_folder() -> Path:
    """The folder of compiled engines, in which no other user can leave one."""
    folder = user_cache() / "native"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not make_own_folder(folder):
        raise ValueError(f"{folder} is not used for compiled code: others may write to it, or it is a link")
    return folder


def _is_whole(path: Path) -> bool:
    """Whether a library is this user's own and has its checksum: a damaged one could end the process."""
    try:
        with path.open("rb") as file:
            return is_own(os.fstat(file.fileno())) and read_text(_checksum_path(path)).strip() == (
                hashlib.sha256(file.read()).hexdigest()
            )
    except (OSError, ValueError):
        return False


def _checksum_path(path: Path) -> Path:
    return path.with_suffix(".sha256")


def compile_library(compiler: str, source: Path, path: Path) -> None:
    """Compile a source to a shared library for this processor.

    Raises:
        ValueError: The compiler fails; its message is quoted.
    """
    done = _run([*shlex.split(compiler), *compile_flags(), str(source), "-o", str(path)])
    if done.returncode or not path.is_file():
        message = os.fsdecode(done.stderr).strip()[:300] or f"it has status {done.returncode}, and no message"
        raise ValueError(f"{compiler} failed: {message}")


def _run(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, timeout=_TIMEOUT_S)
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"{command[0]} did not end in {_TIMEOUT_S} s") from error


def compile_flags() -> tuple[str, ...]:
    """Flags of the compiler for this processor. With AVX-512, -march=native is slower than AVX2."""
    return (*FLAGS, *(AVX2_FLAGS if has_avx2() else ()))


def load(path: Path) -> ctypes.CDLL:
    """Load a compiled engine."""
    engine = ctypes.CDLL(str(path))
    size, number, pointer = ctypes.c_size_t, ctypes.c_int, ctypes.c_void_p
    engine.ultralight_check.argtypes = (pointer, number, number)
    engine.ultralight_rule.argtypes, engine.ultralight_rule.restype = (number,), ctypes.c_char_p
    engine.ultralight_num_weights.argtypes, engine.ultralight_num_weights.restype = (pointer,), size
    engine.ultralight_num_scratch.argtypes = (pointer, number, number)
    engine.ultralight_num_scratch.restype = size
    engine.ultralight_run.argtypes = (pointer, pointer, pointer, number, number, pointer, pointer)
    engine.ultralight_run.restype = None
    engine.ultralight_minmax.argtypes, engine.ultralight_minmax.restype = (pointer, pointer, size), None
    engine.ultralight_probability.argtypes, engine.ultralight_probability.restype = (pointer, number, size), None
    return engine
