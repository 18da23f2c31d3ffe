"""A pass that launches no kernel: it finds out which variants of them a piece of work would have Triton compile.

Triton compiles a kernel once for each kind of arguments: types, alignments, constants. Here every launch comes as far
as the compiler, which takes down what it is asked for, so that nothing of how Triton tells variants apart is repeated.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

import torch
import triton
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime import driver

_aten = torch.ops.aten
_UNWRITTEN = {_aten.empty, _aten.empty_like, _aten.empty_strided, _aten.new_empty, _aten.new_empty_strided}


class Variant(NamedTuple):
    """What Triton's compiler is called with, and finds on disk what it has compiled by."""

    source: ASTSource
    target: GPUTarget
    options: dict


def dry_pass(run: Callable[[], object], module: nn.Module, *, device: torch.device) -> list[Variant]:
    """The variants of Triton's kernels that `run` launches in this thread, without launching any.

    All else runs as it is, on zeros where a kernel would have written. Random numbers and the buffers of `module` are
    the same afterwards; that `run` leaves the gradients alone is its own affair. torch's compiler is not at work.
    """
    # what was made in inference mode can be changed only there, and is not
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers() if not buffer.is_inference()]
    # without threads of autograd's own, backward launches from this one, too
    in_this_thread = torch.autograd.set_multithreading_enabled(False)
    random = torch.random.fork_rng([device] if device.type == "cuda" else [])
    # asking for it loads torch's compiler: not where nothing is compiled
    eager = torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()
    try:
        with eager, in_this_thread, random, _Zeros(), _recorded() as variants:
            run()
    finally:
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return variants


class _Zeros(TorchDispatchMode):
    """What kernels should have written is zero.

    A class that happened to lie in memory would be an index beyond its table, and on a GPU that ends the process.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in _UNWRITTEN or func.namespace == "mhsvm":
            tree_map_only(Tensor, Tensor.zero_, output)
        return output


@contextmanager
def _recorded() -> Iterator[list[Variant]]:
    """Take down what this thread's launches would compile, and launch nothing; other threads launch as ever."""
    active, compiler = driver.active, triton.compiler.compile
    nowhere = _Nowhere(active)
    recorder = _Recorder(compiler)
    driver.set_active(nowhere)
    triton.compiler.compile = recorder
    try:
        yield recorder.variants
    finally:
        recorder.thread = None
        triton.compiler.compile = compiler
        driver.set_active(active)
        for variant in recorder.variants:
            variant.source.fn.compile = compiler
            variant.source.fn.device_caches.pop(nowhere.device, None)


class _Nowhere:
    """Triton's driver, but that this thread's device is one for which no kernel has been compiled yet."""

    def __init__(self, active) -> None:
        self._active = active
        self._thread = threading.get_ident()
        self.device = object()

    def get_current_device(self):
        return self.device if threading.get_ident() == self._thread else self._active.get_current_device()

    def get_current_stream(self, device):
        return 0 if device is self.device else self._active.get_current_stream(device)

    def __getattr__(self, name: str):
        return getattr(self._active, name)


class _Recorder:
    """Stands in for Triton's compiler in this thread, until `thread` is None.

    A kernel keeps the compiler that it has met first: in other threads, and afterwards, the call is passed on.
    """

    def __init__(self, compiler: Callable) -> None:
        self._compiler = compiler
        self.thread: int | None = threading.get_ident()
        self.variants: list[Variant] = []

    def __call__(self, source, target=None, options=None, **further):
        if threading.get_ident() != self.thread:
            return self._compiler(source, target=target, options=options, **further)
        self.variants.append(Variant(source, target, dict(options)))
        return _NoKernel()


class _NoKernel:
    """A compiled kernel whose launch does nothing."""

    function = packed_metadata = None

    def launch_metadata(self, *arguments) -> None:
        return None

    def run(self, *arguments) -> None:
        return None
