"""The folder of a comparison: comparison.json, cases.csv and plots."""

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from mhsvm.report.comparison import Comparison, Contender, gains_over
from mhsvm.report.comparison_plots import write_plots
from mhsvm.result_folder import ResultFolder
from mhsvm.text_file import write_json, write_table

SCHEMA = 1
RESULTS = ResultFolder(
    kind="a comparison",
    main="comparison.json",
    mark=b'"schema"',
    others=("cases.csv", "intervals.png", "gains-*.png"),
)


def write_comparison(folder: Path, comparison: Comparison) -> None:
    """Write a comparison to a folder; an older comparison is replaced.

    Raises:
        FileExistsError: The folder holds other files.
    """
    with RESULTS.replace(folder) as partial:
        write_json(partial / "comparison.json", describe_comparison(comparison))
        write_compared_cases(partial / "cases.csv", comparison)
        write_plots(partial, comparison)


def describe_comparison(comparison: Comparison) -> dict:
    """Collect a comparison as plain types for JSON."""
    content = {"schema": SCHEMA, "num_images": len(comparison.ids), "notes": list(comparison.notes)}
    content["runs"] = _describe(comparison.contenders)
    if comparison.against:
        content["against"] = {
            reference: {"num_images": len(contenders[0].scores), "runs": _describe(contenders)}
            for reference, contenders in comparison.against.items()
        }
    return content


def _describe(contenders: Sequence[Contender]) -> list[dict]:
    first, runs = contenders[0], []
    for contender in contenders:
        content = {"name": contender.name, **contender.described}
        if contender is not first:
            gains = gains_over(contender, first)
            content["to"] = first.name
            content["wins"], content["losses"] = gains.num_wins, gains.num_losses
            content["differences"] = {
                name: _without_nan(asdict(difference) | {"p_value_adjusted": contender.p_values[name]})
                for name, difference in contender.differences.items()
            }
        runs.append(content)
    return runs


def write_compared_cases(path: Path, comparison: Comparison) -> None:
    """Write a row for each image: the Dice of each model, and the gains over the first."""
    first, *others = comparison.contenders
    columns = [contender.dice for contender in comparison.contenders]
    columns += [contender.dice - first.dice for contender in others]
    names = [f"dice of {contender.name}" for contender in comparison.contenders]
    names += [f"gain of {contender.name}" for contender in others]
    values = torch.stack(columns, dim=1).tolist()
    write_table(path, ["id", *names], ([id_, *row] for id_, row in zip(comparison.ids, values, strict=True)))


def _without_nan(values: dict) -> dict:
    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: plain(value) for name, value in values.items()}
