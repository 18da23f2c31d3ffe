"""Several processes that train one network together, started by torchrun; here is all that they tell each other.

Every process draws the same order and the same motions, and takes its share of each batch. Losses and gradients are
weighted by the images of the whole batch and summed, so that a step is that of one process with the whole batch.
Decisions are made by all of them at the same place, and only the first one writes.
"""

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Result = TypeVar("Result")

# What torchrun sets; whoever starts the processes otherwise sets them, too.
_VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")


class LostProcess(RuntimeError):
    """Another process of this training has ended; what was wrong there, that one said."""


@dataclass(frozen=True)
class World:
    """The processes of a training, seen from one of them. By default it is alone, and every method costs nothing.

    All processes have to call a method at the same place; each may raise `LostProcess`.

    Attributes:
        rank: Number of this process, from 0.
        size: How many there are.
        local_rank: Number of this process on its machine.
        restarts: How often torchrun has started them again after a failure.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def is_first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0

    def share(self, rows: Tensor) -> Tensor:
        """The part of rows (n,) that falls to this process: a piece of n / size, rounded up or down; maybe empty."""
        return rows.tensor_split(self.size)[self.rank]

    @torch.no_grad()
    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors of one type and device by their sums over all processes, as one message."""
        if self.size == 1 or not tensors:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
        with _lost_process_told():
            dist.all_reduce(flat)
        parts = flat.split([tensor.numel() for tensor in tensors])
        torch._foreach_copy_(list(tensors), [part.view_as(x) for part, x in zip(parts, tensors, strict=True)])

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in any process."""
        if self.size == 1:
            return flag
        count = torch.tensor(int(flag))
        with _lost_process_told():
            dist.all_reduce(count)
        return bool(count)

    def gather(self, value: object) -> list:
        """The values of all processes, by rank."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        with _lost_process_told():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, function: Callable[[], Result]) -> Result:
        """Call a function in the first process alone, and give its result to all.

        Raises:
            ValueError, OSError: The function did, in the first process; the others exit quietly.
        """
        if self.size == 1:
            return function()
        result: list = [None]
        with self.together():
            if self.is_first:
                result = [function()]
        with _lost_process_told():
            dist.broadcast_object_list(result)
        return result[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Let a user's error in any process, a ValueError or OSError, end all of them; the first that has one raises
        it, and the others exit quietly. Inside the block, the processes tell each other nothing.
        """
        error: ValueError | OSError | None = None
        try:
            yield
        except (ValueError, OSError) as caught:
            error = caught
        failed = [rank for rank, has_failed in enumerate(self.gather(error is not None)) if has_failed]
        if error is not None and failed[0] == self.rank:
            raise error
        if failed:
            # torchrun ends all processes when one exits: that one is to be the one that says why
            with suppress(LostProcess):
                self.gather(None)
            raise SystemExit(2)


ALONE = World()


@contextmanager
def open_world() -> Iterator[World]:
    """Meet the other processes that torchrun has started; without it, be alone.

    Let go of captured steps inside the block: NCCL, whose sums they hold, would wait for their end at its own.
    """
    if any(name not in os.environ for name in _VARIABLES):
        yield ALONE
        return
    local_rank, restarts = int(os.environ["LOCAL_RANK"]), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0))
    store, rank, size = next(dist.rendezvous("env://"))
    # torchrun keeps its store when it starts processes again, with the addresses of those that are gone
    store = dist.PrefixStore(f"start{restarts}", store)
    on_gpus = torch.cuda.is_available() and dist.is_nccl_available()
    # tensors of the CPU, decisions among them, never wait for a GPU
    dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", store=store, rank=rank, world_size=size)
    yield World(rank, size, local_rank, restarts)
    # captured steps in a cycle of references, which would be waited for without end
    gc.collect()
    # after an error the others may be gone, and saying goodbye would wait for them
    dist.destroy_process_group()


@contextmanager
def _lost_process_told() -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        raise LostProcess("another process of this training has ended: what was wrong, it said itself") from error
