"""The page of results in Markdown, from records of runs and published numbers. Every row names how it was obtained."""

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from yacs.config import CfgNode

from mhsvm.defaults import DEFAULTS
from mhsvm.prepare.sets import DEFAULT_SIZE
from mhsvm.report.training import format_duration
from mhsvm.table import format_markdown_table
from mhsvm.text_file import read_table
from results_records import Record

_METRICS = {"IoU": "miou", "DSC": "dsc", "IoU per image": "miou_per_image", "DSC per image": "dsc_per_image"}
_HEADER = ("network", "trained on", "recipe", "seeds", "precision", "hardware", "time", *_METRICS)
_PUBLISHED_HEADER = ("network", "protocol", "IoU", "DSC", "source")
_INTRODUCTION = """# Results

`python scripts/results.py` makes this page from the records in `scripts/records/runs.jsonl`. Only the published numbers
(`scripts/records/published.csv`) and the notes at the end are typed by hand. For research only; not a medical device.

IoU and DSC are pooled: one confusion matrix over all pixels of the test images, as the papers print them. The metrics
per image are averages over images. Several seeds are shown as mean ± sample standard deviation. The time is that of
training and validation, averaged over the seeds. A recipe names the settings that differ from the defaults of
`mhsvm/defaults.py`. Published numbers were measured by others, each with the protocol in its row: **only rows of one
protocol compare.**
"""


@dataclass(frozen=True)
class RecordedTest:
    """One test of a recorded run.

    Attributes:
        record: The record of the run.
        config: Its config.
        summary: The part of the test's summary that the record keeps.
    """

    record: Record
    config: CfgNode
    summary: Mapping

    @property
    def protocol(self) -> Mapping:
        return self.summary["protocol"]


def read_published(path: Path) -> list[dict[str, str]]:
    """Read published numbers: model, set, protocol, iou and dsc ("" if it was not given), source."""
    return read_table(path).rows


def results_page(records: Sequence[Record], published: Sequence[Mapping[str, str]]) -> str:
    """Make the page: a section for each test set, a table for each split of it.

    Args:
        records: At least one.
        published: Rows of `read_published`; those of a set without a section are left out.
    """
    configs = [record.config for record in records]
    tests = [
        RecordedTest(record, config, summary)
        for record, config in zip(records, configs, strict=True)
        for summary in record.tests
    ]
    sections = [_INTRODUCTION]
    for set_name, of_set in _grouped(tests, lambda test: test.protocol["set"]["name"]):
        sections.append(f"## {set_name}\n")
        for protocol, of_protocol in _grouped(of_set, _describe_protocol):
            rows = [_row(seeds) for _, seeds in _grouped(of_protocol, _identity)]
            sections.append(f"{protocol}\n\n{format_markdown_table(_HEADER, rows)}")
        rows = [
            [row["model"], row["protocol"], row["iou"] or "-", row["dsc"] or "-", row["source"]]
            for row in published
            if row["set"] == set_name
        ]
        if rows:
            sections.append(f"Published, by the protocol named:\n\n{format_markdown_table(_PUBLISHED_HEADER, rows)}")
    return "\n".join(sections)


def _grouped(
    tests: Sequence[RecordedTest], key: Callable[[RecordedTest], str]
) -> Iterator[tuple[str, list[RecordedTest]]]:
    groups: dict[str, list[RecordedTest]] = {}
    for test in tests:
        groups.setdefault(key(test), []).append(test)
    yield from sorted(groups.items())


def _describe_protocol(test: RecordedTest) -> str:
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


def _identity(test: RecordedTest) -> str:
    """Key of a row: equal for runs that differ only in their seed."""
    config = test.config.clone()
    config.defrost()
    config.run = CfgNode()
    return f"{config.model.name} {config.dump()} {test.protocol['set']['checksum']}"


def _row(seeds: Sequence[RecordedTest]) -> list[str]:
    config = seeds[0].config
    times = [test.record.seconds for test in seeds if test.record.seconds is not None]
    return [
        _describe_model(config),
        f"{Path(config.data.set).stem}, {config.data.split}",
        _describe_recipe(config),
        ", ".join(str(seed) for seed in sorted(test.config.run.seed for test in seeds)),
        config.train.precision + (", tf32" if config.train.tf32 else ""),
        "; ".join(dict.fromkeys(test.record.hardware for test in seeds if test.record.hardware)) or "not recorded",
        format_duration(statistics.fmean(times)) if times else "not recorded",
        *(_spread([test.summary["metrics"][name] for test in seeds]) for name in _METRICS.values()),
    ]


def _describe_model(config: CfgNode) -> str:
    name = config.model.name
    start = f"from {Path(config.model.weights).name}" if config.model.weights else "random initialization"
    return ", ".join([name, *_differences(config.model[name], DEFAULTS.model[name]), start])


def _describe_recipe(config: CfgNode) -> str:
    optimizer, schedule = config.optimizer.name, config.schedule.name
    parts = [f"{config.train.epochs} epochs", f"batch {config.train.batch_size * config.train.accumulation}"]
    parts.append(f"{optimizer} {config.optimizer[optimizer].lr:g}")
    parts += _differences(config.optimizer[optimizer], DEFAULTS.optimizer[optimizer], without=("lr",))
    parts += [schedule, *_differences(config.schedule[schedule], DEFAULTS.schedule[schedule])]
    parts += _differences(config.data, DEFAULTS.data, without=("set", "split", "placement", "size"))
    # the size that a set has unless another one is named
    parts += [] if config.data.size in (0, DEFAULT_SIZE) else [f"size {config.data.size}"]
    parts += _differences(config.loss[config.loss.name], DEFAULTS.loss[config.loss.name])
    shown = ("epochs", "batch_size", "accumulation", "precision", "tf32")
    return ", ".join([*parts, *_differences(config.train, DEFAULTS.train, without=shown)])


def _differences(node: CfgNode, default: CfgNode, *, without: Sequence[str] = ()) -> list[str]:
    return [f"{key} {value}" for key, value in node.items() if key not in without and value != default[key]]


def _spread(values: Sequence[float]) -> str:
    mean = f"{statistics.fmean(values):.4f}"
    return mean if len(values) == 1 else f"{mean} ± {statistics.stdev(values):.4f}"
