"""A page of results from run folders, beside published numbers: every row names how it was obtained."""

import csv
import hashlib
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from mhsvm.config import DEFAULTS, load_config
from mhsvm.report.training import format_duration, read_cost

FIGURES = {"IoU": "miou", "DSC": "dsc", "IoU per image": "miou_per_image", "DSC per image": "dsc_per_image"}
_HEADER = ("network", "trained on", "recipe", "seeds", "precision", "hardware", "time", *FIGURES)
_PUBLISHED_HEADER = ("network", "protocol", "IoU", "DSC", "source")
_INTRODUCTION = """# Results

Made by `python scripts/results.py` from the run folders in `docs/runs`; nothing here is typed by hand but the published
numbers, which come from `docs/published.csv`, and the notes at the end. For research only; this is no medical device.

IoU and DSC are pooled: one confusion matrix over all pixels of the test images, as the papers print them. The figures
per image are averages over images. Of several seeds, mean ± sample standard deviation. The time is that of training and
validation, the mean of the seeds. A recipe names what differs from the defaults of `mhsvm/config.py`. Published numbers
were measured by others, each by the protocol that stands beside it: **only rows of one protocol compare.**
"""


@dataclass(frozen=True)
class MeasuredTraining:
    """A finished training with one of its tests.

    Attributes:
        config: Of the training.
        summary: Of the test.
        seconds: That the training took; None where it was not recorded.
        hardware: What it ran on, in words; "" likewise.
    """

    config: CfgNode
    summary: Mapping
    seconds: float | None
    hardware: str

    @property
    def protocol(self) -> Mapping:
        return self.summary["protocol"]


def find_runs(paths: Sequence[Path]) -> list[Path]:
    """Run folders at or below the given paths, sorted.

    Raises:
        FileNotFoundError: A path is not there, or there is none at or below it.
    """
    found: set[Path] = set()
    for path in paths:
        runs = {file.parent for file in path.rglob("config.yaml") if (file.parent / "metrics.jsonl").is_file()}
        if not runs:
            raise FileNotFoundError(f"there is no run folder at or below {path}: it has config.yaml and metrics.jsonl")
        found |= runs
    return sorted(found)


def read_run(folder: Path) -> tuple[list[MeasuredTraining], str]:
    """The tests of a run's best checkpoint; none, and the reason, where the training is not finished or not tested.

    Raises:
        ValueError: A file is damaged.
    """
    config = load_config(folder / "config.yaml")
    done, epochs = len((folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()), config.train.epochs
    if done < epochs:
        return [], f"{done} of {epochs} epochs are done"
    cost = read_cost(folder / "times.jsonl")
    best = folder / "checkpoints" / "best.pt"
    # large weights may stay where they were trained: the summary knows them by their hash
    checksum = hashlib.sha256(best.read_bytes()).hexdigest() if best.is_file() else None
    tests = []
    for path in sorted(folder.glob("tests/*/summary.json")):
        summary = _read_json(path)
        checkpoint = summary["checkpoint"]
        if checkpoint["file"] == best.name and checksum in (None, checkpoint["sha256"]):
            tests.append(MeasuredTraining(config, summary, cost.seconds, cost.hardware))
    return tests, "" if tests else "its best checkpoint was not tested"


def read_published(path: Path) -> list[dict[str, str]]:
    """Rows of published numbers, each with model, set, protocol, iou, dsc ("" where it was not given) and source."""
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results_page(tests: Sequence[MeasuredTraining], published: Sequence[Mapping[str, str]]) -> str:
    """The page in Markdown: a section for each test set, a table for each choice of its images.

    Args:
        tests: At least one.
        published: From `read_published`; those of the sets that have a section are shown.
    """
    sections = [_INTRODUCTION]
    for set_name, of_set in _grouped(tests, lambda test: test.protocol["set"]["name"]):
        sections.append(f"## {set_name}\n")
        for protocol, of_protocol in _grouped(of_set, _describe_protocol):
            rows = [_row(seeds) for _, seeds in _grouped(of_protocol, _identity)]
            sections.append(f"{protocol}\n\n{_table(_HEADER, rows)}")
        rows = [
            [row["model"], row["protocol"], row["iou"] or "-", row["dsc"] or "-", row["source"]]
            for row in published
            if row["set"] == set_name
        ]
        if rows:
            sections.append(f"Published, by the protocol named:\n\n{_table(_PUBLISHED_HEADER, rows)}")
    return "\n".join(sections)


def _read_json(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is damaged ({error}): test again") from error


def _grouped(
    tests: Sequence[MeasuredTraining], key: Callable[[MeasuredTraining], str]
) -> Iterator[tuple[str, list[MeasuredTraining]]]:
    groups: dict[str, list[MeasuredTraining]] = {}
    for test in tests:
        groups.setdefault(key(test), []).append(test)
    yield from sorted(groups.items())


def _describe_protocol(test: MeasuredTraining) -> str:
    protocol = test.protocol
    h, w = protocol["set"]["size"]
    seen = protocol["trained_on"] + protocol["chosen_on"]
    warning = (
        f"; **the checkpoints have seen images of it: trained on {protocol['trained_on']}, chosen on "
        f"{protocol['chosen_on']}**"
        if seen
        else ""
    )
    return (
        f"### {protocol['split']}, sha256 {protocol['split_hash'][:12]}\n\n{protocol['num_images']} test images at "
        f"{h} x {w}, set {protocol['set']['checksum'][:12]}, threshold {protocol['threshold']}{warning}."
    )


def _identity(test: MeasuredTraining) -> str:
    """What runs that differ in their seed alone have in common."""
    config = test.config.clone()
    config.defrost()
    config.run = CfgNode()
    return f"{config.model.name} {config.dump()} {test.protocol['set']['checksum']}"


def _row(seeds: Sequence[MeasuredTraining]) -> list[str]:
    config = seeds[0].config
    times = [test.seconds for test in seeds if test.seconds is not None]
    return [
        _describe_model(config),
        f"{Path(config.data.set).stem}, {config.data.split}",
        _describe_recipe(config),
        ", ".join(str(seed) for seed in sorted(test.config.run.seed for test in seeds)),
        config.train.precision + (", tf32" if config.train.tf32 else ""),
        "; ".join(dict.fromkeys(test.hardware for test in seeds if test.hardware)) or "not recorded",
        format_duration(statistics.fmean(times)) if times else "not recorded",
        *(_spread([test.summary["metrics"][name] for test in seeds]) for name in FIGURES.values()),
    ]


def _describe_model(config: CfgNode) -> str:
    name = config.model.name
    start = f"from {Path(config.model.weights).name}" if config.model.weights else "random initialisation"
    return ", ".join([name, *_differences(config.model[name], DEFAULTS.model[name]), start])


def _describe_recipe(config: CfgNode) -> str:
    optimizer, schedule = config.optimizer.name, config.schedule.name
    parts = [f"{config.train.epochs} epochs", f"batch {config.train.batch_size * config.train.accumulation}"]
    parts.append(f"{optimizer} {config.optimizer[optimizer].lr:g}")
    parts += _differences(config.optimizer[optimizer], DEFAULTS.optimizer[optimizer], without=("lr",))
    parts += [schedule, *_differences(config.schedule[schedule], DEFAULTS.schedule[schedule])]
    parts += _differences(config.data, DEFAULTS.data, without=("set", "split", "placement"))
    parts += _differences(config.loss[config.loss.name], DEFAULTS.loss[config.loss.name])
    shown = ("epochs", "batch_size", "accumulation", "precision", "tf32")
    return ", ".join([*parts, *_differences(config.train, DEFAULTS.train, without=shown)])


def _differences(node: CfgNode, default: CfgNode, *, without: Sequence[str] = ()) -> list[str]:
    return [f"{key} {value}" for key, value in node.items() if key not in without and value != default[key]]


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)
