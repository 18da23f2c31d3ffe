"""NVRTC, the CUDA compiler as a library, which every pip-installed torch for CUDA brings; called by ctypes."""

import ctypes
import functools
import glob
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch


class NvrtcError(RuntimeError):
    """NVRTC is missing, or does not compile a source."""


class Nvrtc:
    """A loaded NVRTC.

    Args:
        library: The shared library.
        path: Name by which it was found.
    Attributes:
        version: (major, minor).
        architectures: Compute capabilities that it compiles for, as numbers such as 90.
    """

    def __init__(self, library: ctypes.CDLL, path: str) -> None:
        self._library, self.path = library, path
        library.nvrtcGetErrorString.restype = ctypes.c_char_p
        major, minor, num = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
        self._check(library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
        self.version = major.value, minor.value
        self._check(library.nvrtcGetNumSupportedArchs(ctypes.byref(num)))
        numbers = (ctypes.c_int * num.value)()
        self._check(library.nvrtcGetSupportedArchs(numbers))
        self.architectures = tuple(sorted(numbers))

    def compile(self, source: str, name: str, options: list[str], headers: Mapping[str, str]) -> bytes:
        """Machine code of a source. Python's lock is free meanwhile, so threads compile side by side.

        Raises:
            NvrtcError: The source is not compiled; the compiler's messages are quoted.
        """
        library, program = self._library, ctypes.c_void_p()
        names = (ctypes.c_char_p * len(headers))(*(x.encode() for x in headers))
        texts = (ctypes.c_char_p * len(headers))(*(x.encode() for x in headers.values()))
        self._check(
            library.nvrtcCreateProgram(
                ctypes.byref(program), source.encode(), name.encode(), len(headers), texts, names
            )
        )
        try:
            arguments = (ctypes.c_char_p * len(options))(*(x.encode() for x in options))
            result = library.nvrtcCompileProgram(program, len(options), arguments)
            if result:
                raise NvrtcError(f"NVRTC {self._named()} does not compile {name}: {self._log(program)[:2000]}")
            size = ctypes.c_size_t()
            self._check(library.nvrtcGetCUBINSize(program, ctypes.byref(size)))
            cubin = ctypes.create_string_buffer(size.value)
            self._check(library.nvrtcGetCUBIN(program, cubin))
            return cubin.raw
        finally:
            library.nvrtcDestroyProgram(ctypes.byref(program))

    def _log(self, program: ctypes.c_void_p) -> str:
        size = ctypes.c_size_t()
        self._check(self._library.nvrtcGetProgramLogSize(program, ctypes.byref(size)))
        log = ctypes.create_string_buffer(size.value)
        self._check(self._library.nvrtcGetProgramLog(program, log))
        return log.value.decode(errors="replace").strip()

    def _named(self) -> str:
        return ".".join(map(str, self.version))

    def _check(self, result: int) -> None:
        if result:
            raise NvrtcError(f"NVRTC: {self._library.nvrtcGetErrorString(result).decode()}")


@functools.cache
def load_nvrtc() -> Nvrtc:
    """The NVRTC of this torch, else another one of its CUDA version.

    Raises:
        NvrtcError: None is found or can be loaded.
    """
    version = torch.version.cuda
    if version is None:
        raise NvrtcError("torch is built without CUDA")
    major = version.partition(".")[0]
    errors = []
    for name in candidates(major):
        try:
            # NVRTC 13 opens this library by name only, so it has to be loaded before
            for builtins in sorted(glob.glob(os.path.join(glob.escape(os.path.dirname(name)), "libnvrtc-builtins*"))):
                if os.path.isabs(name):
                    ctypes.CDLL(builtins)
            return Nvrtc(ctypes.CDLL(name), name)
        except (OSError, AttributeError, NvrtcError) as error:
            errors.append(str(error))
    raise NvrtcError(
        f"NVRTC of CUDA {major} is not found ({errors[0]}): install the package nvidia-cuda-nvrtc"
        f"{'-cu12' if major == '12' else ''}, which comes with torch for CUDA"
    )


def candidates(major: str) -> Iterator[str]:
    """Names and paths at which NVRTC may be; first the name of the one that torch has loaded."""
    if not sys.platform.startswith("linux"):
        return
    yield f"libnvrtc.so.{major}"
    wheels = importlib.util.find_spec("nvidia")
    folders = [] if wheels is None else list(wheels.submodule_search_locations or ())
    for folder in folders:
        for part in (f"cu{major}", "cuda_nvrtc"):
            yield from _libraries(Path(folder, part, "lib"), major)
    yield from _libraries(Path(torch.__file__).parent / "lib", major)
    yield from _libraries(Path(sys.prefix, "lib"), major)
    yield "libnvrtc.so"


def _libraries(folder: Path, major: str) -> list[str]:
    found = (*folder.glob(f"libnvrtc.so.{major}*"), *folder.glob(f"libnvrtc-*.so.{major}*"))
    return sorted(str(path) for path in found if "builtins" not in path.name and ".alt." not in path.name)
