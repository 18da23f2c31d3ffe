"""Comparison of models on the same images: metrics, differences to the first model, wins and losses by image.

Shape letters: n images that all models were tested on.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from mhsvm.evaluation.scores import absence_lines, describe_scores
from mhsvm.metrics import (
    Difference,
    Scores,
    adjust_p_values,
    argument_line,
    list_metrics,
    metric_columns,
    paired_differences,
    target_pixels,
)
from mhsvm.report.measured_run import MeasuredRun
from mhsvm.store import SYNTHETIC


@dataclass(frozen=True)
class Contender:
    """A model of a comparison.

    Attributes:
        name: Name of its run.
        scores: Scores of the n images.
        described: Result of `describe_scores` for them.
        differences: Differences to the first model, by the names of the metrics that both have; empty for the first.
        p_values: p values of the differences, adjusted by Holm's method for the number of models.
    """

    name: str
    scores: Scores
    described: dict
    differences: dict[str, Difference]
    p_values: dict[str, float]

    @property
    def dice(self) -> Tensor:
        """Dice of each image, float64 (n,); with several classes, the mean over those that occur."""
        return self.scores.per_image()["dice"]


@dataclass(frozen=True)
class Comparison:
    """Models on the n images that all of them were tested on.

    Attributes:
        ids: Ids of the images.
        contenders: The models; the others are compared to the first.
        notes: Remarks for the reader.
        against: The models against each consensus and rater that all of them were measured against.
    """

    ids: tuple[str, ...]
    contenders: tuple[Contender, ...]
    notes: tuple[str, ...]
    against: Mapping[str, tuple[Contender, ...]] = field(default_factory=dict)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics that all models have."""
        names = [contender.described["metrics"] for contender in self.contenders]
        return tuple(name for name in names[0] if all(name in others for others in names))


def compare(tested: Sequence[MeasuredRun]) -> Comparison:
    """Compare two or more tests on their common images.

    Raises:
        ValueError: There are fewer than two, no image is common, or their ground truths differ.
    """
    if len(tested) < 2:
        raise ValueError("a comparison needs two runs or more")
    common = set.intersection(*(set(run.scores.ids) for run in tested))
    ids = tuple(id_ for id_ in tested[0].scores.ids if id_ in common)
    if not ids:
        names = ", ".join(f"{run.name} ({_describe_split(run)})" for run in tested)
        raise ValueError(f"no image was tested by all of {names}: test them on one split")
    differing = _differing_arguments(tested)
    left_out = metric_columns(list(differing))
    contenders = _contend(tested, [_pick(run.scores, ids).without(left_out) for run in tested])
    absent = [f"{contender.name}: {line}" for contender in contenders for line in absence_lines(contender.scores)]
    notes = (*_notes(tested, ids), *differing.values(), *absent)
    return Comparison(ids, contenders, notes, _against(tested, ids, left_out))


def _contend(tested: Sequence[MeasuredRun], scores: Sequence[Scores]) -> tuple[Contender, ...]:
    """The runs by their scores on the same images."""
    for run, own in zip(tested[1:], scores[1:], strict=True):
        _check_targets(tested[0].name, scores[0], run.name, own)
    differences = [{}, *(paired_differences(own, scores[0]) for own in scores[1:])]
    p_values = _adjusted(differences[1:])
    return tuple(
        Contender(run.name, own, describe_scores(own), differing, adjusted)
        for run, own, differing, adjusted in zip(tested, scores, differences, [{}, *p_values], strict=True)
    )


def _against(
    tested: Sequence[MeasuredRun], ids: Sequence[str], left_out: Sequence[str]
) -> dict[str, tuple[Contender, ...]]:
    """The runs against each consensus and rater, on those of some images that it has; not against all but one."""
    described = tested[0].summary.get("raters", {}).get("against", {})
    found = {}
    for reference in described:
        if not all(reference in run.against for run in tested):
            continue
        common = set(ids).intersection(*(run.against[reference].ids for run in tested))
        own_ids = [id_ for id_ in ids if id_ in common]
        if own_ids:
            scores = [_pick(run.against[reference], own_ids).without(left_out) for run in tested]
            found[reference] = _contend(tested, scores)
    return found


@dataclass(frozen=True)
class Gains:
    """Difference in Dice between a model and the first, for each image.

    Attributes:
        rows: int64 (n,), images from the largest gain to the largest loss.
        values: float64 (n,), the differences of these rows.
        ids: Ids of these rows.
    """

    rows: Tensor
    values: Tensor
    ids: tuple[str, ...]

    @property
    def num_wins(self) -> int:
        """Number of images on which it is better."""
        return int((self.values > 0).sum())

    @property
    def num_losses(self) -> int:
        """Number of images on which it is worse."""
        return int((self.values < 0).sum())

    def largest(self, num: int) -> list[tuple[str, float]]:
        """Up to `num` images with the largest gains, largest first."""
        return list(zip(self.ids, self.values.tolist(), strict=True))[: min(num, self.num_wins)]

    def smallest(self, num: int) -> list[tuple[str, float]]:
        """Up to `num` images with the largest losses, largest first."""
        return list(zip(self.ids, self.values.tolist(), strict=True))[::-1][: min(num, self.num_losses)]


def gains_over(contender: Contender, first: Contender) -> Gains:
    """Sort the images by the gain of a model over the first; equal gains keep the images' order."""
    gains = contender.dice - first.dice
    rows = gains.argsort(descending=True, stable=True)
    return Gains(rows, gains[rows], tuple(first.scores.ids[row] for row in rows.tolist()))


def _pick(scores: Scores, ids: Sequence[str]) -> Scores:
    row_of = {id_: row for row, id_ in enumerate(scores.ids)}
    return scores.rows(torch.tensor([row_of[id_] for id_ in ids]))


def _check_targets(name: str, scores: Scores, other_name: str, others: Scores) -> None:
    """Check that the ground truths of two tests agree in their numbers of pixels, image by image."""
    target, other_target = (target_pixels(each.counts) for each in (scores, others))
    if target.shape != other_target.shape:
        raise ValueError(
            f"{name} has {target.shape[1]} scored classes and {other_name} {other_target.shape[1]}: "
            "compare models of the same classes"
        )
    differing = (target != other_target).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if differing:
        raise ValueError(
            f"the ground truth of {len(differing)} of {len(target)} images differs between {name} and {other_name}, "
            f"such as {scores.ids[differing[0]]}: they were measured at different sizes or against other masks. "
            "Test both on one prepared set, or score their masks at one size"
        )


def _adjusted(differences: Sequence[dict[str, Difference]]) -> list[dict[str, float]]:
    adjusted: list[dict[str, float]] = [{} for _ in differences]
    for name in dict.fromkeys(name for own in differences for name in own):
        places = [place for place, own in enumerate(differences) if name in own and not math.isnan(own[name].p_value)]
        values = adjust_p_values([differences[place][name].p_value for place in places])
        for own, before in zip(adjusted, differences, strict=True):
            if name in before:
                own[name] = math.nan
        for place, value in zip(places, values, strict=True):
            adjusted[place][name] = value
    return adjusted


def _differing_arguments(tested: Sequence[MeasuredRun]) -> dict[str, str]:
    """Notes by the names of metrics that the tests have measured with different arguments."""
    of_runs = [run.summary.get("arguments", {}) for run in tested]
    shared = [name for name in of_runs[0] if name in list_metrics() and all(name in others for others in of_runs[1:])]
    return {
        name: f"{name} is left out: its arguments differ, "
        + ", ".join(
            f"{run.name} has {argument_line({name: own[name]})}" for run, own in zip(tested, of_runs, strict=True)
        )
        for name in shared
        if any(own[name] != of_runs[0][name] for own in of_runs[1:])
    }


def _notes(tested: Sequence[MeasuredRun], ids: Sequence[str]) -> Iterator[str]:
    yield f"{len(ids)} common images"
    for run in tested:
        left_out = len(run.scores) - len(ids)
        if left_out:
            yield f"{run.name} was tested on {left_out} more images, which are left out"
        if SYNTHETIC in run.summary.get("protocol", {}).get("set", {}):
            yield f"{run.name} was tested on synthetic images, which say nothing about real lesions"
    splits = {run.name: _describe_split(run) for run in tested}
    if len(set(splits.values())) > 1:
        yield f"the splits differ: {', '.join(f'{name} has {split}' for name, split in splits.items())}"
    for run in tested:
        # scores of masks have no training
        seen = set(run.summary.get("leakage", {}).get("seen", ())) & set(ids)
        if seen:
            yield f"{run.name} has seen {len(seen)} of them in training, or near-duplicates, which raises its metrics"


def _describe_split(run: MeasuredRun) -> str:
    protocol = run.summary.get("protocol", {})
    if "split" not in protocol:
        return "scored masks"
    return f"{protocol['set']['name']} {protocol['split']} {protocol['split_hash'][:12]}"
