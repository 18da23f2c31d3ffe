"""The folder of a run: the names of its files, and the record of its epochs."""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboardX import SummaryWriter

from mhsvm.data.split_file import Split
from mhsvm.files import replace_when_complete
from mhsvm.system import peak_memory


class RunFolder:
    """Names of the files of a run.

    Args:
        path: The folder; it need not exist.
    """

    def __init__(self, path: str | Path) -> None:
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
            FileExistsError: There is such a folder; the message names the two ways on.
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
        self.config.write_text(config, encoding="utf-8")
        split.save(self.split)


class Recorder:
    """Writes the line of each epoch to metrics.jsonl and TensorBoard, which has the config too, and the time and
    memory of each epoch to times.jsonl.

    The times of a run add up to all that was spent on it: an epoch that was left half-way has a line, too, and one that
    was done twice has two.

    Args:
        run: An existing run folder.
        history: Lines of the epochs that are done. The file is written again from them, so that an epoch which was
            recorded but has to be redone is not there twice.
        epochs: How many there will be.
        hardware: The hardware of the training, by name; plain values.
    """

    def __init__(self, run: RunFolder, history: list[dict], *, epochs: int, hardware: Mapping) -> None:
        self._path, self._times = run.metrics, run.times
        self._next_epoch, self._epochs = len(history) + 1, epochs
        self._hardware = dict(hardware)
        self._since = time.perf_counter()
        with replace_when_complete(self._path) as partial:
            partial.write_text("".join(map(_line, history)), encoding="utf-8")
        self._writer = SummaryWriter(str(run.path / "tensorboard"), purge_step=len(history) + 1)
        # a block of code in Markdown
        config = run.config.read_text(encoding="utf-8").splitlines()
        self._writer.add_text("config", "\n".join(f"    {line}" for line in config), len(history))

    def add(self, figures: dict) -> None:
        """Append the metrics of one epoch."""
        with self._path.open("a", encoding="utf-8") as file:
            file.write(_line(figures))
        for name, value in figures.items():
            if name != "epoch":
                self._writer.add_scalar(name, value, figures["epoch"])
        self._writer.flush()
        self._add_time()
        self._next_epoch += 1

    def close(self) -> None:
        """Finish the files."""
        self._writer.close()
        if self._next_epoch <= self._epochs:
            self._add_time()

    def _add_time(self) -> None:
        now = time.perf_counter()
        took = {"seconds": round(now - self._since, 3), "memory_gib": peak_memory()}
        line = {"epoch": self._next_epoch, **took, **self._hardware}
        self._since = now
        with self._times.open("a", encoding="utf-8") as file:
            file.write(_line(line))


def _line(figures: dict) -> str:
    return json.dumps(figures) + "\n"
