"""A process that compiles kernels for another one: it reads variants from stdin and answers each with a line.

It runs as a file; its arguments are the folders of modules. An answer is empty, or the error. It imports neither torch,
which takes longer than many kernels, nor anything that uses a GPU.
"""

import contextlib
import importlib
import importlib.util
import os
import pickle
import signal
import subprocess
import sys

# Errors of a machine without a C compiler or a library, or with a full disk.
_MACHINE_ERRORS = (AssertionError, ImportError, OSError, RuntimeError, subprocess.SubprocessError)
# Errors of a wrong job: a kernel that cannot be loaded, or does not take its arguments.
_JOB_ERRORS = (AttributeError, LookupError, TypeError, ValueError, pickle.PickleError)

_settled: set[int] = set()


def settle_key(function) -> None:
    """Make the key of a kernel's source, by which it is found on disk, the same in every process.

    In Triton 3.6 the key of a function depends on whether its callees have keys already, and so on earlier launches.
    """
    if id(function) in _settled:
        return
    _settled.add(id(function))
    for name in function.fn.__code__.co_names:
        callee = function.fn.__globals__.get(name)
        if hasattr(callee, "cache_key"):
            settle_key(callee)
    function.hash = None
    _ = function.cache_key


class KernelUnpickler(pickle.Unpickler):
    """Reads pickles that refer to kernels by (module, name)."""

    def persistent_load(self, reference: tuple[str, str]):
        module, name = reference
        _enter_packages(module)
        kernel = getattr(importlib.import_module(module), name)
        settle_key(kernel)
        return kernel


def _enter_packages(module: str) -> None:
    """Import the packages that contain a module without running their own files, which import torch."""
    parts = module.split(".")
    for end in range(1, len(parts)):
        package = ".".join(parts[:end])
        if package not in sys.modules:
            spec = importlib.util.find_spec(package)
            assert spec is not None
            sys.modules[package] = importlib.util.module_from_spec(spec)


def build_launcher(source, metadata) -> None:
    """Compile the C function that launches a kernel: up to Triton 3.6 there is one for each list of arguments.

    Compiled one after the other, those of a network would take as long as all its kernels in parallel. One that fails
    here is compiled at the launch of the kernel.
    """
    from triton.backends.nvidia import driver

    if hasattr(driver, "make_launcher"):
        with contextlib.suppress(*_MACHINE_ERRORS):
            driver.CudaLauncher(source, metadata)


def main() -> None:
    sys.path[:] = sys.argv[1:]
    # Ctrl-C ends the other process, which ends this one by closing the pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="backslashreplace")
    # all other output goes to stderr
    os.dup2(2, 1)

    from triton.compiler import compile as compile_variant
    from triton.errors import TritonError

    while True:
        unpickler = KernelUnpickler(sys.stdin.buffer)
        try:
            source, target, options = unpickler.load()
            compiled = compile_variant(source, target=target, options=options)
            if target.backend == "cuda":
                build_launcher(source, compiled.metadata)
            answer = ""
        except EOFError:
            return
        # the other process raises it again at the launch of the kernel
        except (TritonError, *_MACHINE_ERRORS, *_JOB_ERRORS) as error:
            answer = " ".join(f"{type(error).__name__}: {error}".split())
        print(answer, file=answers, flush=True)


if __name__ == "__main__":
    main()
