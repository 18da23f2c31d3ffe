"""A training read from its run folder: config, learning curves and cost."""

from dataclasses import dataclass
from pathlib import Path

from mhsvm.config import read_value
from mhsvm.text_file import read_json, read_json_lines, read_text


@dataclass(frozen=True)
class TrainingCost:
    """Time, memory and hardware of a training.

    Attributes:
        seconds: Duration of all epochs, repeated ones included; None if it was not recorded.
        memory_gib: Peak memory, that of the GPU if there was one; None if it was not recorded.
        hardware: Devices and torch version; "" if they were not recorded.
    """

    seconds: float | None
    memory_gib: float | None
    hardware: str


@dataclass(frozen=True)
class Training:
    """A training, finished or not.

    Attributes:
        name: Name of the run.
        config: Its config as YAML.
        epochs: Number of epochs of the whole training.
        history: Losses and metrics of each finished epoch; see `mhsvm.training.run_folder.Recorder`.
        cost: Time, memory and hardware.
    """

    name: str
    config: str
    epochs: int
    history: tuple[dict, ...]
    cost: TrainingCost


def read_training(run: Path) -> Training:
    """Read a run folder.

    Raises:
        FileNotFoundError: A file is missing.
        ValueError: A file is damaged.
    """
    config, metrics = run / "config.yaml", run / "metrics.jsonl"
    return Training(
        name=run.resolve().name,
        config=read_text(config),
        epochs=read_value(config, "train.epochs"),
        history=tuple(_read_lines(metrics, "epoch")),
        cost=read_cost(run / "times.jsonl"),
    )


def read_cost(path: Path) -> TrainingCost:
    """Sum the times of all epochs; runs of older versions have no such file."""
    if not path.is_file():
        return TrainingCost(None, None, "")
    lines = _read_lines(path, "processes", "device", "torch", "seconds")
    names = {(f"{n} x " if (n := line["processes"]) > 1 else "") + line["device"]: None for line in lines}
    versions = {f"torch {line['torch']}": None for line in lines}
    memory = [line["memory_gib"] for line in lines if line.get("memory_gib") is not None]
    return TrainingCost(
        seconds=sum(line["seconds"] for line in lines),
        memory_gib=max(memory, default=None),
        hardware=", ".join([*names, *versions]),
    )


def read_test_times(path: Path) -> dict | None:
    """Read `num_images`, `seconds`, `memory_gib`, `device`, `torch` of a test; None for tests of older versions."""
    if not path.is_file():
        return None
    times = read_json(path, remedy="test again")
    missing = {"num_images", "seconds", "device", "torch"} - set(times)
    if missing:
        raise ValueError(f"{path} is damaged (it has no {', '.join(sorted(missing))}): test again")
    return times


def format_duration(seconds: float) -> str:
    """Format seconds as hours and minutes, or as minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _read_lines(path: Path, *keys: str) -> list[dict]:
    lines = read_json_lines(path)
    for number, line in enumerate(lines, start=1):
        missing = [key for key in keys if key not in line]
        if missing:
            raise ValueError(f"{path}, line {number}, is damaged: it has no {', '.join(missing)}")
    return lines
