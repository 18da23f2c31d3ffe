"""Compile the kernels of a computation before it runs, on all cores at once."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import nn

from mhsvm.ops import triton_support
from mhsvm.ops.cuda.kernels import compile_kernels, recorded
from mhsvm.ops.dispatch import requested_name

_COMPILED = ("auto", "cuda", "triton")


def compile_ahead(run: Callable[[], object], module: nn.Module, *, device: torch.device, num_processes: int) -> None:
    """Compile the kernels that `run` will launch, in Triton and CUDA C++, if they run here and are not on disk.

    `run` is called once with kernels that write nothing; their outputs are zeros. It may change the buffers of `module`
    but no weights, no gradients and nothing else, and must not use its results. A kernel that cannot be compiled ahead
    is compiled at its launch.

    Args:
        run: The computation.
        module: The module whose buffers it may change; they are restored.
        device: Device of the computation; without a GPU nothing is done.
        num_processes: Limit of the number of processes that compile Triton's kernels, and of threads for the others.
    """
    if device.type != "cuda" or requested_name("auto") not in _COMPILED:
        return
    if triton_support.interpreted() or triton_support.unavailable_reason() is not None:
        return
    # Triton is imported when it is first needed
    from mhsvm.ops.compiling.dry_pass import dry_pass
    from mhsvm.ops.compiling.variants import compile_variants

    with recorded() as kernels:
        variants = dry_pass(run, module, device=device)
    # importing a module of another package may do anything
    own = [variant for variant in variants if variant.source.fn.fn.__module__.startswith("mhsvm.")]
    with ThreadPoolExecutor(1) as beside:
        compiling = beside.submit(compile_kernels, kernels, num_threads=num_processes)
        compile_variants(own, num_processes=num_processes)
        compiling.result()
