"""Records of finished and tested runs: the few numbers from which the page of results is made.

A file of records holds one JSON object per line: the run's name, its settings, cost and tests.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from yacs.config import CfgNode

from mhsvm.config import config_from_dict, load_config, to_dict
from mhsvm.report.training import read_cost
from mhsvm.text_file import read_json, read_json_lines, write_json_lines

# Parts of a test's summary that a record keeps; curves, bins and lists of ids stay in the run folder.
_KEPT = ("metrics", "intervals", "protocol", "checkpoint", "version", "device")


@dataclass(frozen=True)
class Record:
    """A finished run and the tests of its best checkpoint.

    Attributes:
        run: Names of the run's parent folder and of its own folder.
        settings: The groups of its config that the run used.
        seconds: Duration of training and validation; None if it was not recorded.
        memory_gib: Peak memory; None if it was not recorded.
        hardware: Devices and torch version; "" if not recorded.
        tests: A part of each summary.json: metrics with intervals, protocol, checkpoint, version, device, leakage.
    """

    run: str
    settings: Mapping
    seconds: float | None
    memory_gib: float | None
    hardware: str
    tests: Sequence[Mapping]

    @property
    def config(self) -> CfgNode:
        """The whole config; groups that the run did not use have their defaults."""
        return config_from_dict(self.settings)


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Run folders at or below the given paths, sorted.

    Raises:
        FileNotFoundError: A path does not exist, or has no run folder at or below it.
    """
    found: set[Path] = set()
    for path in paths:
        runs = {file.parent for file in path.rglob("config.yaml") if (file.parent / "metrics.jsonl").is_file()}
        if not runs:
            raise FileNotFoundError(f"there is no run folder at or below {path}: it has config.yaml and metrics.jsonl")
        found |= runs
    return sorted(found)


def read_run(folder: Path) -> tuple[Record | None, str]:
    """Make the record of a run folder.

    Returns:
        The record and "", or None and the reason if the run is not finished or its best checkpoint was not tested.
    Raises:
        ValueError: A file is damaged.
    """
    config = load_config(folder / "config.yaml")
    done, epochs = len(read_json_lines(folder / "metrics.jsonl")), config.train.epochs
    if done < epochs:
        return None, f"{done} of {epochs} epochs are done"
    best = folder / "checkpoints" / "best.pt"
    # without the weights, which may be on another machine, the summary's hash is trusted
    checksum = hashlib.sha256(best.read_bytes()).hexdigest() if best.is_file() else None
    summaries = [read_json(path, remedy="test again") for path in sorted(folder.glob("tests/*/summary.json"))]
    tests = [
        _shorten(summary)
        for summary in summaries
        if summary["checkpoint"]["file"] == best.name and checksum in (None, summary["checkpoint"]["sha256"])
    ]
    if not tests:
        return None, "its best checkpoint was not tested"
    whole, cost = folder.resolve(), read_cost(folder / "times.jsonl")
    name = f"{whole.parent.name}/{whole.name}"
    return Record(name, _used_settings(config), cost.seconds, cost.memory_gib, cost.hardware, tests), ""


def read_records(path: Path) -> list[Record]:
    """Read a file of records."""
    return [Record(**row) for row in read_json_lines(path)]


def write_records(path: Path, records: Sequence[Record]) -> None:
    """Write records to a file, sorted by the runs' names."""
    write_json_lines(path, map(asdict, sorted(records, key=lambda each: each.run)))


def _used_settings(config: CfgNode) -> dict:
    """The config without the networks, losses, optimizers and schedules that its `name` keys do not choose."""
    return {
        group: {key: value for key, value in node.items() if not isinstance(value, dict) or key == node.get("name")}
        for group, node in to_dict(config).items()
    }


def _shorten(summary: Mapping) -> dict:
    content = {name: summary[name] for name in _KEPT if name in summary}
    if "intervals" in content:
        content["intervals"] = content["intervals"]["limits"]
    if "leakage" in summary:
        leakage = summary["leakage"]
        content["leakage"] = {name: leakage[name] for name in ("unknown", "counts", "dropped", "num_images")}
        content["leakage"]["unseen"] = leakage["metrics"]["unseen"]
    return content
