import csv
import json
import math

import pytest
from scipy import stats

from mhsvm.config import load_config
from mhsvm.sweep.grid import GridRun
from mhsvm.sweep.table import Result, make_rows, spread_of, write_results, write_spreads


def result(value: float, *, seed: int = 0, fold: int | None = None, variant: str = "", set_name: str = "a", **figures):
    run = GridRun(f"{variant}{seed}{fold}", variant, seed, fold, (), load_config())
    protocol = {"set": {"name": set_name}, "split": "official", "split_hash": "0" * 64}
    return Result(run, {"metrics": {"dsc": value, **figures}, "protocol": protocol})


def test_the_interval_is_students():
    values = [0.81, 0.84, 0.79, 0.9]
    spread = spread_of(values)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert spread.num == 4
    assert spread.mean == pytest.approx(0.835, abs=1e-15)
    assert spread.deviation == pytest.approx(stats.tstd(values), rel=1e-12)
    assert spread.interval == pytest.approx((expected.low, expected.high), rel=1e-9)


def test_a_single_run_has_no_spread():
    (row,) = make_rows([result(0.5)])
    assert (row.spreads["dsc"].mean, row.spreads["dsc"].deviation, row.spreads["dsc"].interval) == (0.5, None, None)


def test_seeds_are_repetitions_and_settings_and_sets_have_their_own_rows():
    results = [
        result(value, seed=seed, variant=variant, set_name=set_name)
        for variant, start in (("lr=1", 0.1), ("lr=2", 0.5))
        for set_name in "ab"
        for seed, value in enumerate([start, start + 0.2])
    ]
    rows = make_rows(results)
    assert [(row.variant, row.set_name, row.num_runs, row.unit) for row in rows] == [
        ("lr=1", "a", 2, "seed"),
        ("lr=1", "b", 2, "seed"),
        ("lr=2", "a", 2, "seed"),
        ("lr=2", "b", 2, "seed"),
    ]
    assert [row.spreads["dsc"].mean for row in rows] == pytest.approx([0.2, 0.2, 0.6, 0.6])


def test_the_seeds_of_a_fold_are_averaged_before_folds_are_compared():
    values = {(0, 0): 0.1, (0, 1): 0.3, (1, 0): 0.6, (1, 1): 0.8, (2, 0): 0.4}
    (row,) = make_rows([result(value, fold=fold, seed=seed) for (fold, seed), value in values.items()])
    assert (row.num_runs, row.unit) == (5, "fold")
    spread, expected = row.spreads["dsc"], spread_of([0.2, 0.7, 0.4])
    assert spread.num == 3
    assert (spread.mean, spread.deviation) == pytest.approx((expected.mean, expected.deviation), rel=1e-12)
    assert spread.interval == pytest.approx(expected.interval, rel=1e-12)


def test_figures_are_those_that_all_tests_have_as_numbers():
    first, second = result(0.1, seed=0, loss=1.0, extra={"low": 0}), result(0.2, seed=1)
    (row,) = make_rows([first, second])
    assert list(row.spreads) == ["dsc"]


def test_the_files_hold_every_figure(tmp_path):
    results = [result(0.25, seed=0, loss=1.0), result(0.75, seed=1, loss=3.0)]
    write_spreads(tmp_path / "table.csv", make_rows(results))
    lines = list(csv.DictReader((tmp_path / "table.csv").read_text().splitlines()))
    assert [(line["figure"], line["mean"], line["runs"], line["of"]) for line in lines] == [
        ("dsc", "0.5", "2", "seed"),
        ("loss", "2.0", "2", "seed"),
    ]
    assert float(lines[1]["deviation"]) == pytest.approx(math.sqrt(2))
    write_results(tmp_path / "table.json", make_rows(results), results, {"seed9": "out of memory"})
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["rows"][0]["figures"]["dsc"]["interval"] == pytest.approx(spread_of([0.25, 0.75]).interval)
    assert [run["figures"]["loss"] for run in content["runs"]] == [1.0, 3.0]
    assert content["given_up"] == {"seed9": "out of memory"}
