"""The folder of a run: the names of its files, and the record of its epochs."""

import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from mhsvm.data.split_file import Split
from mhsvm.files import StrPath
from mhsvm.folder_lock import NAME as LOCK
from mhsvm.system import peak_memory
from mhsvm.text_file import append_json_line, read_lines, write_json_lines, write_text


class RunFolder:
    """Names of the files of a run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: StrPath) -> None:
        self.path = Path(path)
        self.config = self.path / "config.yaml"
        self.split = self.path / "split.txt"
        self.log = self.path / "log.txt"
        self.metrics = self.path / "metrics.jsonl"
        self.times = self.path / "times.jsonl"
        self.tensorboard = self.path / "tensorboard"
        self.best = self.path / "checkpoints" / "best.pt"
        self.last = self.path / "checkpoints" / "last.pt"

    def check_new(self) -> None:
        """Make sure that nothing is overwritten.

        Raises:
            FileExistsError: The folder exists, and holds more than an unsaved start.
        """
        if self.path.exists() and not self.is_unsaved_start():
            raise FileExistsError(
                f"{self.path} exists: go on with `resume` {self.path}, or choose another name with run.name NAME"
            )

    def is_unsaved_start(self) -> bool:
        """Whether the folder holds nothing but files of a training that ended before its first checkpoint.

        Such a training has lost nothing, and is started again from its config.
        """
        return self.path.is_dir() and all(self._is_of_start(path) for path in self.path.rglob("*"))

    def remove_unsaved_start(self) -> None:
        """Remove an unsaved start; its folder stays if it is locked."""
        if not self.is_unsaved_start():
            return
        for path in sorted(self.path.rglob("*"), reverse=True):
            if path.is_dir():
                path.rmdir()
            elif path.name != LOCK:
                path.unlink()
        if not any(self.path.iterdir()):
            self.path.rmdir()

    def _is_of_start(self, path: Path) -> bool:
        if path.is_symlink():
            return False
        if path in (self.last.parent, self.tensorboard):
            return path.is_dir()
        if path.match(".*.partial") or path.parent == self.tensorboard:
            return path.is_file() and (path.parent != self.tensorboard or path.match("events.out.tfevents.*"))
        files = (self.config, self.split, self.log, self.metrics, self.times, self.path / LOCK)
        return path.is_file() and path in files

    def create(self, *, config: str, split: Split) -> None:
        """Make the folder with the config (YAML text) and the split of the run, instead of an unsaved start."""
        self.check_new()
        self.remove_unsaved_start()
        self.best.parent.mkdir(parents=True)
        write_text(self.config, config)
        split.save(self.split)


class Recorder:
    """Writes the metrics of each epoch to metrics.jsonl and TensorBoard, and its time and memory to times.jsonl.

    TensorBoard also gets the config. The times of a run add up to its total duration: an interrupted epoch has a line,
    and an epoch that was repeated has two.

    Args:
        run: An existing run folder.
        history: Metrics of the epochs that are done. The file is written again from them, so that an epoch that was
            recorded but is repeated has one line.
        epochs: Number of epochs of the whole training.
        hardware: The hardware of the training, by name; plain values.
    """

    def __init__(self, run: RunFolder, history: list[dict], *, epochs: int, hardware: Mapping) -> None:
        self._path, self._times = run.metrics, run.times
        self._next_epoch, self._epochs = len(history) + 1, epochs
        self._hardware = dict(hardware)
        self._since = time.perf_counter()
        write_json_lines(self._path, history)
        self._writer = SummaryWriter(str(run.tensorboard), purge_step=len(history) + 1)
        # a block of code in Markdown
        config = read_lines(run.config)
        self._writer.add_text("config", "\n".join(f"    {line}" for line in config), len(history))

    def add(self, metrics: dict) -> None:
        """Append the metrics of one epoch."""
        append_json_line(self._path, metrics)
        for name, value in metrics.items():
            if name != "epoch" and value is not None:
                self._writer.add_scalar(name, value, metrics["epoch"])
        self._writer.flush()
        self._add_time()
        self._next_epoch += 1

    def close(self) -> None:
        """Close the files."""
        self._writer.close()
        if self._next_epoch <= self._epochs:
            self._add_time()

    def _add_time(self) -> None:
        now = time.perf_counter()
        cost = {"seconds": round(now - self._since, 3), "memory_gib": peak_memory()}
        line = {"epoch": self._next_epoch, **cost, **self._hardware}
        self._since = now
        append_json_line(self._times, line)
