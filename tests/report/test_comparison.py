"""Comparison of models on the same images: differences, notes, refusals, files."""

import csv
import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from mhsvm.metrics import Scores, adjust_p_values, paired_differences
from mhsvm.report.comparison import compare, gains_over
from mhsvm.report.comparison_folder import describe_comparison, write_comparison
from mhsvm.report.measured_run import MeasuredRun


def scores(hits, ids=None, *, pixels=50, distances=True):
    """An image for each number of hits, out of `pixels` of lesion; the third has no boundary."""
    counts = torch.tensor([[[hit, 5, pixels - hit, 100]] for hit in hits])
    far = torch.arange(2.0 * len(hits), dtype=torch.float64).view(-1, 1, 2)
    far[2:3] = math.nan
    return Scores(tuple(ids or (f"case{row}" for row in range(len(hits)))), counts, far if distances else None)


def measured(name, own, **protocol):
    return MeasuredRun(name, Path(name), {"schema": 2, "protocol": protocol}, own)


def split(name, hash_="0" * 64, **protocol):
    return {"split": name, "split_hash": hash_, "set": {"name": "lesions"}, **protocol}


FIRST, SECOND, THIRD = scores([40, 30, 20, 10]), scores([41, 20, 20, 50]), scores([10, 10, 10, 10])


def test_others_are_compared_to_the_first():
    comparison = compare([measured("a", FIRST), measured("b", SECOND), measured("c", THIRD)])
    assert comparison.ids == ("case0", "case1", "case2", "case3")
    assert comparison.notes == ("4 common images",)
    first, second, third = comparison.contenders
    assert first.differences == {}
    assert second.differences == paired_differences(SECOND, FIRST)
    for name in comparison.metrics:
        expected = adjust_p_values([run.differences[name].p_value for run in (second, third)])
        assert [run.p_values[name] for run in (second, third)] == expected


def test_gains_from_the_largest_to_the_largest_loss():
    first, second = compare([measured("a", FIRST), measured("b", SECOND)]).contenders
    gains = gains_over(second, first)
    assert gains.ids == ("case3", "case0", "case2", "case1")
    assert gains.values[0].item() == pytest.approx(2 * 50 / 105 - 2 * 10 / 65)
    assert (gains.num_wins, gains.num_losses) == (2, 1)
    assert [id_ for id_, _ in gains.largest(5)] == ["case3", "case0"]
    assert [id_ for id_, _ in gains.largest(1)] == ["case3"]
    assert [id_ for id_, _ in gains.smallest(5)] == ["case1"]


def test_only_common_images_count_in_the_first_ones_order():
    others = scores([50, 40, 30, 20], ("case3", "new", "case1", "case0"))
    comparison = compare([measured("a", FIRST, **split("x")), measured("b", others, **split("y", "1" * 64))])
    assert comparison.ids == ("case0", "case1", "case3")
    assert comparison.contenders[1].scores.counts[:, 0, 0].tolist() == [20, 30, 50]
    assert comparison.notes == (
        "3 common images",
        "a was tested on 1 more images, which are left out",
        "b was tested on 1 more images, which are left out",
        "the splits differ: a has lesions x 000000000000, b has lesions y 111111111111",
    )


def test_images_seen_in_training_are_reported():
    leaky = replace(measured("a", FIRST), summary={"schema": 2, "leakage": {"seen": ["case1", "case3", "left-out"]}})
    clean = replace(measured("b", SECOND), summary={"schema": 2, "leakage": {"seen": []}})
    assert compare([leaky, clean]).notes[1:] == (
        "a has seen 2 of them in training, or near-duplicates, which raises its metrics",
    )


def test_metrics_that_all_models_have():
    comparison = compare([measured("a", FIRST), measured("b", scores([1, 2, 3, 4], distances=False))])
    assert "hd95_per_image" not in comparison.metrics
    assert "hd95_per_image" not in comparison.contenders[1].differences
    assert "dsc" in comparison.metrics


def test_wrong_comparisons_are_refused():
    with pytest.raises(ValueError, match="a comparison needs two runs or more"):
        compare([measured("a", FIRST)])
    with pytest.raises(
        ValueError, match=r"no image was tested by all of a \(lesions x 000000000000\), b \(scored masks"
    ):
        compare([measured("a", FIRST, **split("x")), measured("b", scores([1, 2, 3], "xyz"))])
    with pytest.raises(
        ValueError, match="the ground truth of 4 of 4 images differs between a and b, such as case0: they were"
    ):
        compare([measured("a", FIRST), measured("b", scores([1, 2, 3, 4], pixels=51))])
    both = Scores(FIRST.ids, FIRST.counts.repeat(1, 2, 1))
    with pytest.raises(ValueError, match="a has 1 scored classes and b 2: compare models of the same classes"):
        compare([measured("a", FIRST), measured("b", both)])


def test_json_and_cases(tmp_path):
    without = Scores(FIRST.ids, SECOND.counts, torch.full((4, 1, 2), math.nan, dtype=torch.float64))
    comparison = compare([measured("a", FIRST), measured("b", without)])
    content = json.loads(json.dumps(describe_comparison(comparison), allow_nan=False))
    assert (content["schema"], content["num_images"]) == (1, 4)
    first, second = content["runs"]
    assert "differences" not in first
    assert (second["to"], second["wins"], second["losses"]) == ("a", 2, 1)
    found = paired_differences(without, FIRST)["dsc_per_image"]
    assert second["differences"]["dsc_per_image"] == {
        "value": found.value,
        "interval": list(found.interval),
        "p_value": found.p_value,
        "effect_size": found.effect_size,
        "p_value_adjusted": found.p_value,
    }
    assert second["differences"]["hd95_per_image"]["value"] is None
    assert second["differences"]["hd95_per_image"]["p_value_adjusted"] is None
    write_comparison(tmp_path / "out", comparison)
    assert json.loads((tmp_path / "out/comparison.json").read_text()) == content
    rows = list(csv.DictReader((tmp_path / "out/cases.csv").read_text().splitlines()))
    assert list(rows[0]) == ["id", "dice of a", "dice of b", "gain of b"]
    assert float(rows[3]["gain of b"]) == pytest.approx(2 * 50 / 105 - 2 * 10 / 65)


@pytest.mark.parametrize("others", [SECOND, FIRST, THIRD, scores([50, 50, 50, 50])])
def test_plots_of_winners_losers_and_equals(tmp_path, others):
    write_comparison(tmp_path / "out", compare([measured("a", FIRST), measured("$b_$", others), measured("c", SECOND)]))
    names = {path.name: path.read_bytes()[:4] for path in (tmp_path / "out").glob("*.png")}
    assert names == dict.fromkeys(("intervals.png", "gains-1.png", "gains-2.png"), b"\x89PNG")


def test_synthetic_images_and_absent_classes_are_noted():
    drawn = split("all", set={"name": "synthetic-mine", "synthetic": True})
    empty = torch.tensor([[[40, 5, 10, 100], [0, 3, 0, 152]], [[30, 5, 20, 100], [0, 0, 0, 155]]])
    runs = [measured(name, Scores(("x", "y"), empty), **drawn) for name in ("a", "b")]
    comparison = compare(runs)
    assert "a was tested on synthetic images, which say nothing about real lesions" in comparison.notes
    assert any(note.startswith("b: class 2 is absent from the ground truth of all 2") for note in comparison.notes)
    # the mean is over class 1 alone
    assert comparison.contenders[1].dice.tolist() == [80 / 95, 60 / 85]


def test_a_metric_with_differing_arguments_is_left_out():
    columns = torch.rand(4, 1, 4, dtype=torch.float64)
    own = replace(FIRST, distances=columns, names=("hd95", "assd", "nsd", "nsd_diagonal"))
    runs = []
    for name, tolerance in (("a", 2.0), ("b", 3.0)):
        run = measured(name, own)
        arguments = {"nsd": {"tolerance": tolerance, "fraction": 0.005}}
        runs.append(replace(run, summary=run.summary | {"arguments": arguments}))
    comparison = compare(runs)
    assert {"hd95_per_image", "assd_per_image"} <= set(comparison.metrics)
    assert not [name for name in comparison.metrics if name.startswith("nsd")]
    assert comparison.notes[1] == (
        "nsd is left out: its arguments differ, a has nsd with tolerance 2, fraction 0.005, "
        "b has nsd with tolerance 3, fraction 0.005"
    )
    assert "nsd_diagonal_per_image" in compare([runs[0], replace(runs[0], name="c")]).metrics
