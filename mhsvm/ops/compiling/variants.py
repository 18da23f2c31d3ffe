"""Compile Triton kernels in parallel processes, into Triton's cache on disk."""

import io
import logging
import os
import pickle
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path

import triton
from triton.compiler import ASTSource
from triton.runtime.cache import FileCacheManager
from triton.runtime.jit import JITFunction

from mhsvm.ops.compiling.dry_pass import Variant
from mhsvm.ops.compiling.process import settle_key

if os.name == "posix":
    import fcntl

log = logging.getLogger(__name__)

# The longest variant takes a sixth of the time of all variants of a network: more processes would be idle.
_MOST_PROCESSES = 16
# All variants, one after the other, take a minute: a process that takes longer has stopped.
_LIMIT_S = 300.0
_PROGRAM = Path(__file__).with_name("process.py")
_FOLDER_VARIABLE = "TRITON_CACHE_DIR"


def compile_variants(variants: Sequence[Variant], *, num_processes: int) -> None:
    """Compile the variants that are not on disk, in at most `num_processes` processes; none start if none is missing.

    One process of a machine compiles at a time; others wait for it and find its kernels. Nothing is raised: a variant
    that fails is compiled at its launch.
    """
    keep_one_folder()
    for variant in variants:
        for value in (variant.source.fn, *variant.source.constants.values()):
            if isinstance(value, JITFunction):
                settle_key(value)
    missing = [variant for variant in variants if not is_on_disk(variant)]
    # one process gains nothing, and if Triton ignores its cache, launches compile again
    if min(len(missing), num_processes) < 2 or os.environ.get("TRITON_ALWAYS_COMPILE") == "1":
        return
    with _alone_on_machine() as alone:
        missing = [variant for variant in missing if alone and not is_on_disk(variant)]
        if missing:
            compile_in_parallel(missing, num_processes=num_processes)


def keep_one_folder() -> None:
    """Keep one folder of compiled kernels for this process.

    torch's compiler would set another one when it starts.
    """
    os.environ.setdefault(_FOLDER_VARIABLE, str(Path(_own_folder().cache_dir).parent))


def is_on_disk(variant: Variant) -> bool:
    """Whether Triton has compiled this before. Its own compiler looks it up, and is stopped before it compiles."""
    source = variant.source
    lookup = _Lookup(source.fn, source.signature, source.constants, source.attrs)
    try:
        triton.compiler.compile(lookup, target=variant.target, options=variant.options)
    except _NotOnDisk:
        return False
    return True


def compile_in_parallel(variants: Sequence[Variant], *, num_processes: int, limit_s: float = _LIMIT_S) -> int:
    """Compile in parallel processes; return the number of variants that were compiled.

    Failures and the time are logged. Processes that still run after `limit_s` seconds are killed.
    """
    start = time.monotonic()
    # long sources take longest, so they start first
    variants = sorted(variants, key=lambda variant: len(variant.source.fn.src), reverse=True)
    jobs, failures = _pickle(variants)
    processes = _start_processes(min(len(jobs), num_processes, _MOST_PROCESSES))
    try:
        with ThreadPoolExecutor(max(1, len(processes))) as threads:
            feeding = [threads.submit(_feed, process, jobs) for process in processes]
            try:
                wait(feeding, timeout=limit_s)
            finally:
                # a thread reads until its process ends
                for process in processes:
                    process.kill()
    finally:
        for process in processes:
            process.communicate()
    answers = [answer for future in feeding for answer in future.result()]
    num_compiled = sum(not answer for _, answer in answers)
    failures += [f"{name}: {answer}" for name, answer in answers if answer]
    log.info(
        "compiled %d of %d kernels that were not on disk, in %d processes: %.1f s",
        num_compiled, len(variants), len(processes), time.monotonic() - start,
    )  # fmt: skip
    if failures:
        message = "%d kernels that failed to compile ahead are left to their launch, the first one %s"
        log.warning(message, len(failures), failures[0])
    return num_compiled


def _feed(process: subprocess.Popen, jobs: deque[tuple[str, bytes]]) -> list[tuple[str, str]]:
    """Give jobs to a process until there are none or it has ended; return their names and its answers."""
    answers: list[tuple[str, str]] = []
    assert process.stdin is not None
    assert process.stdout is not None
    while True:
        try:
            name, job = jobs.popleft()
        except IndexError:
            return answers
        try:
            process.stdin.write(job)
            process.stdin.flush()
        except BrokenPipeError:
            line = b""
        else:
            line = process.stdout.readline()
        if not line:
            return [*answers, (name, f"the process that compiled it has ended with status {process.wait()}")]
        answers.append((name, line.decode().strip()))


def _start_processes(num: int) -> list[subprocess.Popen]:
    """Start this number of processes, or as many as the machine allows."""
    # not forked, as CUDA does not survive that; not by multiprocessing, which would import the user's program again
    command = [sys.executable, "-I", str(_PROGRAM), *sys.path]
    # no context on a GPU, not even by mistake
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    processes = []
    try:
        for _ in range(num):
            processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment))
    except OSError as error:
        log.warning("no more than %d processes that compile can be started: %s", len(processes), error)
    return processes


class _KernelPickler(pickle.Pickler):
    """Refers to kernels by (module, name)."""

    def persistent_id(self, value: object) -> tuple[str, str] | None:
        return (value.fn.__module__, value.fn.__qualname__) if isinstance(value, JITFunction) else None


def _pickle(variants: Sequence[Variant]) -> tuple[deque[tuple[str, bytes]], list[str]]:
    """Names and pickles of the variants that can be pickled, and the errors of the others."""
    jobs: deque[tuple[str, bytes]] = deque()
    failures = []
    for variant in variants:
        file = io.BytesIO()
        try:
            # a plain tuple, so that the other process needs no class of this package
            _KernelPickler(file).dump(tuple(variant))
        # pickle raises any of these
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            failures.append(f"{variant.source.name}: {error}")
        else:
            jobs.append((variant.source.name, file.getvalue()))
    return jobs, failures


class _NotOnDisk(Exception):
    """Triton's compiler would compile."""


class _Lookup(ASTSource):
    """The same variant for Triton's cache, but without anything to compile."""

    def make_ir(self, *arguments, **further):
        raise _NotOnDisk


def _own_folder() -> FileCacheManager:
    return FileCacheManager("mhsvm")


@contextmanager
def _alone_on_machine(limit_s: float = _LIMIT_S) -> Iterator[bool]:
    """Hold a lock in Triton's folder; False if another process holds it for `limit_s` seconds."""
    if os.name != "posix":
        yield True
        return
    with open(_own_folder().lock_path, "ab") as file:
        start, reported = time.monotonic(), False
        while not _try_lock(file):
            if time.monotonic() - start > limit_s:
                log.warning("another process has been compiling kernels for %.0f s: going on without it", limit_s)
                yield False
                return
            if not reported:
                log.info("waiting for another process of this machine, which is compiling kernels")
                reported = True
            time.sleep(0.1)
        yield True


def _try_lock(file: io.BufferedWriter) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        log.info("processes that compile the same kernels cannot wait for each other: %s", error)
    return True
