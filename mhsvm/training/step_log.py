"""Reports of the steps of an epoch: gathered on the device, read at times without synchronization."""

from collections import deque
from dataclasses import dataclass

import torch
from torch import Tensor

# Batches between two copies to the CPU.
READ_EVERY = 50


@dataclass(frozen=True)
class StepRecord:
    """One step of the optimizer, over one or several batches.

    Attributes:
        rows: Positions of each batch's images in the data set.
        losses: The loss of each batch, times its fraction of the images.
        found_inf: This step or one before was not finite.
    """

    rows: tuple[Tensor, ...]
    losses: tuple[float, ...]
    found_inf: bool

    @property
    def loss(self) -> float:
        """Mean loss of the images before the step."""
        return sum(self.losses)

    @property
    def num_images(self) -> int:
        return sum(map(len, self.rows))


class StepLog:
    """The reports of `mhsvm.training.step.TrainStep`, in their order.

    Args:
        capacity: Batches that will be reported at most.
        device: Where the reports come from. Those of a CPU are there at once, those of a GPU later.
        lockstep: Read the same reports in the same calls in every process, however fast its GPU is.
    """

    def __init__(self, capacity: int, device: torch.device, *, lockstep: bool = False) -> None:
        on_gpu = device.type == "cuda"
        self._reports = torch.empty(capacity, 2, device=device)
        self._copies = torch.empty(capacity, 2, pin_memory=True) if on_gpu else self._reports
        self._arrivals: deque[tuple[int, torch.cuda.Event]] | None = deque() if on_gpu else None
        self._lockstep = lockstep
        self._batches: list[tuple[Tensor, bool]] = []
        self._num_sent = self._num_arrived = self._num_read = 0

    def add(self, report: Tensor, rows: Tensor, *, last: bool) -> None:
        """Take down a report (2,) on the batch of `rows` (b,); `last` ends a step."""
        self._reports[len(self._batches)].copy_(report)
        self._batches.append((rows, last))

    def read(self, *, wait: bool) -> list[StepRecord]:
        """The steps that are new since the last call: all of them if `wait`, else those that have arrived."""
        if self._arrivals is not None:
            self._send(all_of_it=wait)
        num_arrived = len(self._batches) if self._arrivals is None else self._count_arrived(wait=wait)
        records, start = [], self._num_read
        for end in range(start + 1, num_arrived + 1):
            if self._batches[end - 1][1]:
                records.append(self._record(start, end))
                start = end
        self._num_read = start
        return records

    def _record(self, start: int, end: int) -> StepRecord:
        losses, flags = zip(*self._copies[start:end].tolist(), strict=True)
        rows = tuple(batch for batch, _ in self._batches[start:end])
        return StepRecord(rows, losses, found_inf=flags[-1] > 0)

    def _send(self, *, all_of_it: bool) -> None:
        """Start to copy new reports to the CPU, if there are enough."""
        num_added = len(self._batches)
        if num_added - self._num_sent < (1 if all_of_it else READ_EVERY):
            return
        fresh = slice(self._num_sent, num_added)
        self._copies[fresh].copy_(self._reports[fresh], non_blocking=True)
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self._reports.device))
        self._arrivals.append((num_added, event))
        self._num_sent = num_added

    def _count_arrived(self, *, wait: bool) -> int:
        while self._arrivals and (wait or self._has_arrived()):
            self._num_arrived, event = self._arrivals.popleft()
            event.synchronize()
        return self._num_arrived

    def _has_arrived(self) -> bool:
        """Whether the oldest copy counts as there; in lockstep as soon as a newer one is under way."""
        return len(self._arrivals) > 1 if self._lockstep else self._arrivals[0][1].query()
