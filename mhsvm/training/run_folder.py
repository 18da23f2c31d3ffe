"""The folder of a run: the names of its files, and the record of its epochs."""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from mhsvm.data.split_file import Split
from mhsvm.files import StrPath
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
        self.best = self.path / "checkpoints" / "best.pt"
        self.last = self.path / "checkpoints" / "last.pt"

    def check_new(self) -> None:
        """Make sure that nothing is overwritten.

        Raises:
            FileExistsError: The folder exists.
        """
        if self.path.exists():
            raise FileExistsError(
                f"{self.path} exists: go on with `resume` {self.path}, or choose another name with run.name NAME"
            )

    def remove_unsaved_start(self) -> None:
        """Remove the files of a training that ended before its first checkpoint; any other file stays."""
        files = {self.config, self.split, self.log, self.metrics, self.times}
        left = {*files, self.last.parent, self.path / "tensorboard"}
        unsaved = self.config.is_file() and not self.last.exists() and not self.best.exists()
        if unsaved and {*self.path.iterdir()} <= left:
            shutil.rmtree(self.path)

    def create(self, *, config: str, split: Split) -> None:
        """Make the folder with the config (YAML text) and the split of the run."""
        self.check_new()
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
        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=len(history) + 1)
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
