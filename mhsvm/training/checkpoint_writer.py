"""Checkpoints that are written while the training goes on."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from mhsvm.training.checkpoint import take_snapshot, write_snapshot


class CheckpointWriter:
    """Writes checkpoints in a thread, one after another; to be used in a `with` block, whose end waits for the last.

    A checkpoint is complete on the disk when the next `save` returns, or the block ends: a power cut costs an
    epoch, which is done again. An error of writing is raised there, too.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoints")
        self._writing: Future | None = None

    def __enter__(self) -> "CheckpointWriter":
        return self

    def __exit__(self, *exception: object) -> None:
        try:
            self._wait()
        finally:
            self._thread.shutdown()

    def save(self, paths: Sequence[Path], content: dict) -> None:
        """Copy the content (see `mhsvm.training.checkpoint.take_snapshot`) and write it to files in order.

        Raises:
            OSError: The checkpoint before could not be written.
        """
        snapshot = take_snapshot(content)
        self._wait()
        self._writing = self._thread.submit(_write, paths, snapshot)

    def _wait(self) -> None:
        writing, self._writing = self._writing, None
        if writing is not None:
            writing.result()


def _write(paths: Sequence[Path], snapshot: dict) -> None:
    for path in paths:
        write_snapshot(path, snapshot)
