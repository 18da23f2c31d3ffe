"""Several models on the same images: figures, differences to the first, and who wins where.

Shape letters: n images that all have.
"""

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from mhsvm.evaluation.scores import describe_scores
from mhsvm.metrics import Difference, Scores, adjust_p_values, paired_differences, per_image, target_pixels
from mhsvm.report.measured_run import MeasuredRun

SCHEMA = 1


@dataclass(frozen=True)
class Contender:
    """A model of a comparison.

    Attributes:
        name: Of its run.
        scores: Of the n images.
        described: What `describe_scores` says of them.
        differences: To the first model, under the names of the figures that both have; of the first itself, none.
        p_values: Of the differences, adjusted for as many models as are compared to the first, by Holm's method.
    """

    name: str
    scores: Scores
    described: dict
    differences: dict[str, Difference]
    p_values: dict[str, float]

    @property
    def dice(self) -> Tensor:
        """float64 (n,), of several classes their mean."""
        return per_image(self.scores.counts)["dice"].mean(dim=1)


@dataclass(frozen=True)
class Comparison:
    """Models on the n images that all of them were tested on.

    Attributes:
        ids: Of the images.
        contenders: The models; the first is the one that the others are compared to.
        notes: What a reader has to know, in sentences.
    """

    ids: tuple[str, ...]
    contenders: tuple[Contender, ...]
    notes: tuple[str, ...]

    @property
    def figures(self) -> tuple[str, ...]:
        """Names of the figures that all have."""
        names = [contender.described["metrics"] for contender in self.contenders]
        return tuple(name for name in names[0] if all(name in others for others in names))


def compare(tested: Sequence[MeasuredRun]) -> Comparison:
    """Compare two or more tests on the images that all have.

    Raises:
        ValueError: There are fewer than two, no image is common, or the truth differs between them.
    """
    if len(tested) < 2:
        raise ValueError("a comparison needs two runs or more")
    common = set.intersection(*(set(run.scores.ids) for run in tested))
    ids = tuple(id_ for id_ in tested[0].scores.ids if id_ in common)
    if not ids:
        names = ", ".join(f"{run.name} ({_describe_split(run)})" for run in tested)
        raise ValueError(f"no image was tested by all of {names}: test them on one split")
    scores = [_pick(run.scores, ids) for run in tested]
    for run, own in zip(tested[1:], scores[1:], strict=True):
        _check_truth(tested[0].name, scores[0], run.name, own)
    differences = [{}, *(paired_differences(own, scores[0]) for own in scores[1:])]
    p_values = _adjusted(differences[1:])
    contenders = [
        Contender(run.name, own, describe_scores(own), differing, adjusted)
        for run, own, differing, adjusted in zip(tested, scores, differences, [{}, *p_values], strict=True)
    ]
    return Comparison(ids, tuple(contenders), tuple(_notes(tested, ids)))


@dataclass(frozen=True)
class Gains:
    """By how much a model is better or worse than the first on each image, by Dice.

    Attributes:
        rows: int64 (n,), images from the largest gain to the largest loss.
        values: float64 (n,), the differences of these rows.
        ids: Of these rows.
    """

    rows: Tensor
    values: Tensor
    ids: tuple[str, ...]

    @property
    def num_wins(self) -> int:
        """Images on which it is better."""
        return int((self.values > 0).sum())

    @property
    def num_losses(self) -> int:
        """Images on which it is worse."""
        return int((self.values < 0).sum())

    def largest(self, num: int) -> list[tuple[str, float]]:
        """Up to `num` images on which it is better, with the difference, the largest first."""
        return list(zip(self.ids, self.values.tolist(), strict=True))[: min(num, self.num_wins)]

    def smallest(self, num: int) -> list[tuple[str, float]]:
        """Up to `num` images on which it is worse, with the difference, the worst first."""
        return list(zip(self.ids, self.values.tolist(), strict=True))[::-1][: min(num, self.num_losses)]


def gains_over(contender: Contender, first: Contender) -> Gains:
    """Order the images by what a model gains over the first; equal gains keep the images' order."""
    gains = contender.dice - first.dice
    rows = gains.argsort(descending=True, stable=True)
    return Gains(rows, gains[rows], tuple(first.scores.ids[row] for row in rows.tolist()))


def describe_comparison(comparison: Comparison) -> dict:
    """A comparison as JSON takes it."""
    first = comparison.contenders[0]
    runs = []
    for contender in comparison.contenders:
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
    return {"schema": SCHEMA, "num_images": len(comparison.ids), "notes": list(comparison.notes), "runs": runs}


def write_compared_cases(path: Path, comparison: Comparison) -> None:
    """Write a row for each image: its Dice of each model, and the gains over the first."""
    first, *others = comparison.contenders
    columns = [contender.dice for contender in comparison.contenders]
    columns += [contender.dice - first.dice for contender in others]
    names = [f"dice of {contender.name}" for contender in comparison.contenders]
    names += [f"gain of {contender.name}" for contender in others]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["id", *names])
        for id_, values in zip(comparison.ids, torch.stack(columns, dim=1).tolist(), strict=True):
            writer.writerow([id_, *values])


def _pick(scores: Scores, ids: Sequence[str]) -> Scores:
    row_of = {id_: row for row, id_ in enumerate(scores.ids)}
    return scores.rows(torch.tensor([row_of[id_] for id_ in ids]))


def _check_truth(name: str, scores: Scores, other_name: str, others: Scores) -> None:
    """The same images have the same pixels; otherwise they were measured otherwise."""
    truth, other_truth = (target_pixels(of.counts) for of in (scores, others))
    if truth.shape != other_truth.shape:
        raise ValueError(
            f"{name} has {truth.shape[1]} scored classes and {other_name} {other_truth.shape[1]}: "
            "compare models of the same classes"
        )
    differing = (truth != other_truth).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if differing:
        raise ValueError(
            f"the truth of {len(differing)} of {len(truth)} images differs between {name} and {other_name}, such as "
            f"{scores.ids[differing[0]]}: they were measured at different sizes or against other masks. "
            "Test both on one prepared set, or score their masks at one size"
        )


def _adjusted(differences: Sequence[dict[str, Difference]]) -> list[dict[str, float]]:
    adjusted: list[dict[str, float]] = [{} for _ in differences]
    for name in {name: None for own in differences for name in own}:
        places = [place for place, own in enumerate(differences) if name in own and not math.isnan(own[name].p_value)]
        values = adjust_p_values([differences[place][name].p_value for place in places])
        for own, of_name in zip(adjusted, differences, strict=True):
            if name in of_name:
                own[name] = math.nan
        for place, value in zip(places, values, strict=True):
            adjusted[place][name] = value
    return adjusted


def _notes(tested: Sequence[MeasuredRun], ids: Sequence[str]) -> Iterator[str]:
    yield f"{len(ids)} images, which all have"
    for run in tested:
        left_out = len(run.scores) - len(ids)
        if left_out:
            yield f"{run.name} was tested on {left_out} images more, which are left out"
    splits = {run.name: _describe_split(run) for run in tested}
    if len(set(splits.values())) > 1:
        yield f"the splits differ: {', '.join(f'{name} has {split}' for name, split in splits.items())}"
    for run in tested:
        # scores of masks do not know of any training
        seen = set(run.summary.get("leakage", {}).get("seen", ())) & set(ids)
        if seen:
            yield f"{run.name} has seen {len(seen)} of them in training, or near-duplicates: it looks too good"


def _describe_split(run: MeasuredRun) -> str:
    protocol = run.summary.get("protocol", {})
    if "split" not in protocol:
        return "scored masks"
    return f"{protocol['set']['name']} {protocol['split']} {protocol['split_hash'][:12]}"


def _without_nan(values: dict) -> dict:
    def plain(value: object) -> object:
        if isinstance(value, tuple):
            return [plain(item) for item in value]
        return None if isinstance(value, float) and math.isnan(value) else value

    return {name: plain(value) for name, value in values.items()}
