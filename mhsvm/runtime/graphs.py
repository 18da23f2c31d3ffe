"""CUDA graphs: work on tensors of fixed shapes, captured once and launched as a whole."""

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from mhsvm.ops.compiling.ahead import compile_ahead
from mhsvm.runtime.numerics import convolutions_by_trial
from mhsvm.system import num_cores

if TYPE_CHECKING:
    from torch.cuda import _POOL_HANDLE as PoolHandle

Output = TypeVar("Output")

# Calls before a capture, in which libraries allocate workspaces and kernels are compiled and selected.
WARM_UP_CALLS = 3


def warm_up(function: Callable[..., Output], inputs: Sequence[Tensor]) -> Output:
    """Call a function on a side stream, as a capture does."""
    device = inputs[0].device
    current, side = torch.cuda.current_stream(device), _side_stream(device)
    side.wait_stream(current)
    with torch.cuda.stream(side):
        output = function(*inputs)
    current.wait_stream(side)
    return output


@functools.cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    # a single stream per device, because freed memory is reused only on the stream that allocated it
    return torch.cuda.Stream(device)


@contextmanager
def _without_autocast_cache() -> Iterator[None]:
    """Turn off autocast's cache: casts of weights must be part of a graph, because cached ones are freed later."""
    enabled = torch.is_autocast_cache_enabled()
    torch.clear_autocast_cache()
    torch.set_autocast_cache_enabled(False)
    try:
        yield
    finally:
        torch.set_autocast_cache_enabled(enabled)


class CapturedCall:
    """A function of tensors, captured as a CUDA graph for inputs of fixed shapes and types.

    The function must have run before, under `warm_up`. It must not synchronize with the device (`.item()`, copies from
    the CPU). Other tensors are read and written at the addresses that they had at the capture. Random numbers are new
    in every call, from the device's generator, as without a graph.

    Args:
        function: Function to capture; it is not run.
        inputs: Arguments of the function, on a CUDA device.
        pool: Memory pool for graphs that never run at the same time, from `torch.cuda.graph_pool_handle()`; by default
            a new pool.
    """

    def __init__(
        self, function: Callable[..., Tensor], inputs: Sequence[Tensor], *, pool: "PoolHandle | None" = None
    ) -> None:
        self._inputs = [torch.empty_like(x).copy_(x) for x in inputs]
        self._graph = torch.cuda.CUDAGraph()
        # threads of the loader may allocate page-locked memory during the capture
        capture = torch.cuda.graph(self._graph, pool=pool, capture_error_mode="thread_local")
        with torch.cuda.device(inputs[0].device), capture:
            self._output = function(*self._inputs)

    def __call__(self, *inputs: Tensor) -> Tensor:
        """Replay the graph; the next call overwrites the result."""
        for own, given in zip(self._inputs, inputs, strict=True):
            own.copy_(given, non_blocking=True)
        self._graph.replay()
        return self._output


class GraphedModel(nn.Module):
    """Inference of a network as a CUDA graph, with a single launch per batch.

    The graph is captured in the first call and reads the weights at their addresses. Changes in place, as by an
    optimizer or `load_state_dict`, take effect; weights that are replaced or moved do not. Any number of images is
    split into batches of `shape`, and the last one is padded. A call puts the network into evaluation mode and computes
    no gradients. On a CPU, which has no graphs, the network itself is called.

    Args:
        model: Network from images (b, c, h, w) to one tensor with b entries.
        shape: (b, c, h, w) of a batch.
        pool: Memory pool for graphs that never run at the same time, such as those of a training. Default: a new pool.
    Raises:
        ValueError: The shape is not (b, c, h, w), each at least 1. In a call: the images are none, or differ in size.
    """

    def __init__(self, model: nn.Module, shape: Sequence[int], *, pool: "PoolHandle | None" = None) -> None:
        super().__init__()
        if len(shape) != 4 or min(shape) < 1:
            raise ValueError(f"the shape of a graph's batch is (b, c, h, w), each at least 1; received {tuple(shape)}")
        self.model = model.eval()
        self.shape = tuple(shape)
        self._pool = pool
        self._call: CapturedCall | None = None

    def train(self, mode: bool = True) -> "GraphedModel":
        """Stay in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Run the network on images (n, c, h, w), n at least 1; the result is a new tensor."""
        if images.ndim != 4 or tuple(images.shape[1:]) != self.shape[1:] or len(images) == 0:
            raise ValueError(
                f"this graph takes images (n, {', '.join(map(str, self.shape[1:]))}), n at least 1; received "
                f"{tuple(images.shape)}. Make another GraphedModel for another size"
            )
        self.model.eval()
        if not images.is_cuda:
            return self.model(images)
        if self._call is None:
            self._call = self._capture(images)
        parts = [self._run(self._call, part) for part in images.split(self.shape[0])]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _capture(self, images: Tensor) -> CapturedCall:
        # a buffer that is created in inference mode could not be written to outside it
        with torch.inference_mode(False), torch.no_grad(), _without_autocast_cache(), convolutions_by_trial():
            batch = images.new_zeros(self.shape)
            call = functools.partial(warm_up, self.model, [batch])
            compile_ahead(call, self.model, device=batch.device, num_processes=num_cores())
            for _ in range(WARM_UP_CALLS):
                call()
            return CapturedCall(self.model, [batch], pool=self._pool)

    def _run(self, call: CapturedCall, part: Tensor) -> Tensor:
        missing = self.shape[0] - len(part)
        filled = torch.cat([part, part.new_zeros(missing, *self.shape[1:])]) if missing else part
        return call(filled)[: len(part)].clone()
