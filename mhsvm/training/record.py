"""Records of a training while it runs, in a run folder or in memory."""

from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Protocol

from mhsvm.training.checkpoint import take_snapshot
from mhsvm.training.checkpoint_writer import CheckpointWriter
from mhsvm.training.run_folder import Recorder, RunFolder


class Record(Protocol):
    """Takes the metrics of each epoch and the states to resume from."""

    def add(self, metrics: dict) -> None:
        """Record the metrics of one epoch."""

    def save(self, content: dict, *, best: bool) -> None:
        """Save the content of a checkpoint, also as the best one if `best`."""


class FolderRecord:
    """Writes metrics, times and checkpoints to a run folder.

    Use it in a `with` block, whose end waits until everything is on the disk.

    Args:
        run: An existing run folder.
        history: Metrics of the epochs that are done.
        epochs: Number of epochs of the whole training.
        hardware: The hardware of the training, by name; plain values.
    """

    def __init__(self, run: RunFolder, history: list[dict], *, epochs: int, hardware: Mapping) -> None:
        self._run = run
        with ExitStack() as stack:
            self._checkpoints = stack.enter_context(CheckpointWriter())
            self._recorder = Recorder(run, history, epochs=epochs, hardware=hardware)
            stack.callback(self._recorder.close)
            self._open = stack.pop_all()

    def __enter__(self) -> "FolderRecord":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, metrics: dict) -> None:
        """Append the metrics of one epoch to metrics.jsonl, times.jsonl and TensorBoard."""
        self._recorder.add(metrics)

    def save(self, content: dict, *, best: bool) -> None:
        """Write last.pt, and before it best.pt if `best`, while the training goes on."""
        self._checkpoints.save([*([self._run.best] if best else []), self._run.last], content)


class MemoryRecord:
    """Keeps the weights of the best epoch in memory, and writes nothing.

    Attributes:
        best: State dict of the network with the lowest validation loss; None before the end of the first epoch.
    """

    def __init__(self) -> None:
        self.best: dict | None = None

    def add(self, metrics: dict) -> None:
        """Do nothing: the training's progress holds the history."""

    def save(self, content: dict, *, best: bool) -> None:
        """Keep a copy of the weights if they are the best."""
        if best:
            self.best = take_snapshot({"model": content["model"]})["model"]


class NoRecord:
    """The record of all processes but the first: it keeps nothing."""

    def add(self, metrics: dict) -> None:
        """Do nothing."""

    def save(self, content: dict, *, best: bool) -> None:
        """Do nothing."""
