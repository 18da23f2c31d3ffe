"""Tests and scores found and read."""

import json
import math
from pathlib import Path

import pytest
import torch

from mhsvm.evaluation.scores import write_cases
from mhsvm.evaluation.summary import write_summary
from mhsvm.metrics import Scores
from mhsvm.report.measured_run import read_cases, read_runs

NAN = math.nan
SCORES = Scores(
    ("a", 'b,"c"'),
    torch.tensor([[[3, 1, 1, 3], [1, 0, 0, 7]], [[3, 1, 0, 6], [0, 0, 2, 8]]]),
    torch.tensor([[[12.0, 2.5], [0.1, 1 / 3]], [[NAN, NAN], [NAN, NAN]]]).double(),
)


def make_test(folder: Path, scores=SCORES, **summary) -> Path:
    folder.mkdir(parents=True)
    write_cases(folder / "cases.csv", scores, num_classes=scores.counts.shape[1] + 1)
    write_summary(folder / "summary.json", summary)
    return folder


@pytest.mark.parametrize("num_classes", [1, 3])
@pytest.mark.parametrize("bounded", [True, False])
def test_written_cases_are_read(tmp_path, num_classes, bounded):
    scores = SCORES if num_classes == 3 else SCORES.of_class(1)
    scores = Scores(scores.ids, scores.counts, scores.distances if bounded else None)
    write_cases(tmp_path / "cases.csv", scores, num_classes=num_classes, sizes=[(3, 4), (5, 6)])
    read = read_cases(tmp_path / "cases.csv")
    assert read.ids == scores.ids
    assert torch.equal(read.counts, scores.counts)
    if bounded:
        torch.testing.assert_close(read.distances, scores.distances, rtol=0, atol=0, equal_nan=True)
    else:
        assert read.distances is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "cases.csv is not the table of a test: it has no column fn, fp, id, tn, tp"),
        ("id,tp,fp,fn\na,1,2,3\n", "it has no column tn"),
        ("id,tp,fp,fn,tn\n", "has no rows, or not as many of each image"),
        ("id,tp,fp,fn,tn\na,1,2,3,4\na,1,2,3,4\nb,1,2,3,4\n", "has no rows, or not as many of each image"),
        ("id,tp,fp,fn,tn\na,1,2,3,4\nb,1,2\n", r"cases\.csv, line 3: .* test or score again"),
        ("id,tp,fp,fn,tn\na,1,2,3,many\n", r"cases\.csv, line 2: .*'many'; test or score again"),
    ],
)
def test_damaged_tables(tmp_path, text, message):
    (tmp_path / "cases.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_cases(tmp_path / "cases.csv")


def test_runs_tests_and_scores_are_found(tmp_path):
    make_test(tmp_path / "first/tests/lesions-all")
    make_test(tmp_path / "first/tests/moles-all")
    make_test(tmp_path / "second/tests/lesions-all", protocol={"split": "all"})
    make_test(tmp_path / "masks-scores")
    runs = [tmp_path / "first", tmp_path / "second", tmp_path / "masks-scores"]
    tested = read_runs(runs, test="lesions-all")
    assert [run.name for run in tested] == ["first", "second", "masks-scores"]
    assert tested[0].folder == tmp_path / "first/tests/lesions-all"
    assert tested[1].summary == {"schema": 2, "protocol": {"split": "all"}}
    assert read_runs(runs[1:])[0].folder == tmp_path / "second/tests/lesions-all"


def test_the_one_test_that_all_runs_have_is_taken(tmp_path):
    for run, test in (("first", "a"), ("first", "b"), ("second", "b"), ("second", "c")):
        make_test(tmp_path / run / "tests" / test)
    tested = read_runs([tmp_path / "first", tmp_path / "second"])
    assert [run.folder.name for run in tested] == ["b", "b"]


def test_two_tests_of_one_run_have_names_of_their_own(tmp_path):
    folders = [make_test(tmp_path / "run/tests" / name) for name in ("a", "b")]
    assert [run.name for run in read_runs(folders)] == ["run/a", "run/b"]
    others = [make_test(tmp_path / place / "run/tests/a") for place in ("here", "there")]
    assert [run.name for run in read_runs(others)] == [str(folder) for folder in others]


def test_unclear_and_missing_tests(tmp_path):
    for run, tests in (("first", "ab"), ("second", "ab"), ("third", "cd")):
        for test in tests:
            make_test(tmp_path / run / "tests" / test)
    first, second, third = (tmp_path / run for run in ("first", "second", "third"))
    with pytest.raises(ValueError, match=r"several tests .*first has a, b; .*second has a, b\. Choose one with"):
        read_runs([first, second])
    with pytest.raises(ValueError, match=r"several tests .*first has a, b; .*third has c, d\. Choose one with"):
        read_runs([first, third])
    with pytest.raises(ValueError, match=r"a test is given twice among .*: name different runs"):
        read_runs([first, first / "tests/a"], test="a")
    with pytest.raises(FileNotFoundError, match=r"third has no test 'a'; it has c, d"):
        read_runs([first, third], test="a")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "there is no folder .*run"),
        (["notes.txt"], r"run is neither a run nor a test nor a score: summary\.json and cases\.csv are not there"),
        (["checkpoints/last.pt"], "is a run that has not finished an epoch: resume its training"),
        (["checkpoints/best.pt"], r"run has not been tested yet: test its checkpoint .*best\.pt"),
    ],
)
def test_runs_without_a_test(tmp_path, files, message):
    for name in files:
        (tmp_path / "run" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "run" / name).touch()
    with pytest.raises(FileNotFoundError, match=message):
        read_runs([tmp_path / "run"])


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        ("{", r"summary\.json is damaged"),
        ("[]", r"summary\.json is damaged .*object is expected, not list"),
        ("{}", r"has schema None, this version of mhsvm reads up to 2"),
        (json.dumps({"schema": 3}), r"has schema 3, this version of mhsvm reads up to 2: test or score again"),
    ],
)
def test_damaged_summaries(tmp_path, summary, message):
    folder = make_test(tmp_path / "test")
    (folder / "summary.json").write_text(summary)
    with pytest.raises(ValueError, match=message):
        read_runs([folder])
