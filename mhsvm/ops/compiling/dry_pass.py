"""A pass that launches no kernel and collects the variants of kernels that Triton would compile.

Triton compiles a kernel once for each kind of arguments: types, alignments, constants. In a dry pass every launch ends
at the compiler, which records its arguments. So Triton's own rules decide which variants there are.
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
    """The arguments of Triton's compiler, by which it also finds compiled kernels on disk."""

    source: ASTSource
    target: GPUTarget
    options: dict


def dry_pass(run: Callable[[], object], module: nn.Module, *, device: torch.device) -> list[Variant]:
    """The variants of Triton kernels that `run` would launch in this thread; none is launched.

    Everything else runs, with zeros as the outputs of kernels. Random numbers and the buffers of `module` are the same
    afterwards; `run` must not change gradients. torch's compiler is off.
    """
    # buffers made in inference mode can change only there, and do not
    buffers = [(buffer, buffer.detach().clone()) for buffer in module.buffers() if not buffer.is_inference()]
    # without autograd's threads, backward launches from this thread too
    in_this_thread = torch.autograd.set_multithreading_enabled(False)
    random = torch.random.fork_rng([device] if device.type == "cuda" else [])
    # set_stance loads torch's compiler, so only if it is loaded already
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
    """Fill new tensors with zeros, as no kernel writes them.

    A class read from uninitialized memory could be an index outside its table, which ends the process on a GPU.
    """

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        output = func(*args, **(kwargs or {}))
        if func.overloadpacket in _UNWRITTEN or func.namespace == "mhsvm":
            tree_map_only(Tensor, Tensor.zero_, output)
        return output


@contextmanager
def _recorded() -> Iterator[list[Variant]]:
    """Record the variants that this thread's launches would compile, and launch none; other threads are unchanged."""
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
    """Triton's driver, except that this thread has a device for which no kernel is compiled yet."""

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
    """Replaces Triton's compiler in this thread, until `thread` is None.

    A kernel keeps the first compiler that it has called, so calls from other threads, and later ones, are passed on.
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
