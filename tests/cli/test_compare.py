"""`mhsvm compare`: tests of runs side by side, and what is refused."""

import json
import shutil

import pytest
import torch

from mhsvm.cli import compare as command
from mhsvm.cli import test as test_command
from mhsvm.cli.main import run
from mhsvm.evaluation.scores import write_cases
from mhsvm.evaluation.summary import write_summary
from mhsvm.metrics import Scores


@pytest.fixture
def runs(workplace):
    """Two tested runs, tall and wide, and a third that was only trained."""
    for name, hits in (("tall", [40, 30, 20]), ("wide", [45, 20, 20])):
        folder = workplace / "results" / name / "tests/lesions-all"
        folder.mkdir(parents=True)
        counts = torch.tensor([[[hit, 5, 50 - hit, 100]] for hit in hits])
        write_cases(folder / "cases.csv", Scores(("a", "b", "c"), counts), num_classes=1)
        write_summary(folder / "summary.json", {})
    (workplace / "results/untested/checkpoints").mkdir(parents=True)
    (workplace / "results/untested/checkpoints/best.pt").touch()
    return workplace


def test_tests_of_two_runs_are_compared(workplace, make_set, make_checkpoint, capsys):
    prepared_path = make_set()
    for name, channels in (("tall", "8,16,24,32,48,64"), ("wide", "4,8,12,16,24,32")):
        settings = ("model.ultralight_vm_unet.channels", channels)
        checkpoint = make_checkpoint(prepared_path, *settings, path=f"results/{name}/checkpoints/best.pt")
        options = ["--p", str(checkpoint), "--d", "lesions", "--device", "cpu", "--split", "all"]
        assert test_command.main(options) == 0
    capsys.readouterr()
    assert command.main(["results/tall", "results/wide"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "tall: results/tall/tests/lesions-all",
        "wide: results/wide/tests/lesions-all",
        "15 common images",
    ]
    # the ids that trained both are among all images
    assert "tall has seen 9 of them in training, or near-duplicates, which raises its metrics" in lines
    assert any(line.startswith("hd95_per_image") for line in lines)


def test_table_plots_and_files(runs, capsys):
    assert command.main(["results/tall", "results/wide"]) == 0
    printed = capsys.readouterr().out
    header = next(line for line in printed.splitlines() if line.startswith("metric"))
    assert " ".join(header.split()) == "metric run value 95% interval difference 95% interval p effect"
    folder = runs / "results/comparisons/tall-vs-wide"
    assert {path.name for path in folder.iterdir()} == {"cases.csv", "comparison.json", "gains-1.png", "intervals.png"}
    content = json.loads((folder / "comparison.json").read_text())
    value = content["runs"][1]["differences"]["miou"]["value"]
    # 85 of 165 pixels, and 90 of 165
    assert value == pytest.approx(85 / 165 - 90 / 165)
    assert f"{value:+.4f}" in printed
    assert "wide against tall, by Dice: better on 1, worse on 1 of 3 images" in printed
    assert f"wins most on a {2 * 45 / 100 - 2 * 40 / 95:+.4f}" in printed
    assert f"loses most on b {2 * 20 / 75 - 2 * 30 / 85:+.4f}" in printed
    assert command.main(["results/tall", "results/wide"]) == 0
    assert json.loads((folder / "comparison.json").read_text()) == content


def test_three_runs_have_adjusted_p_values(runs, capsys):
    shutil.copytree("results/tall", "results/third")
    assert command.main(["results/tall", "results/wide", "results/third", "--out", "compared"]) == 0
    assert "p, Holm" in capsys.readouterr().out
    assert (runs / "compared/gains-2.png").is_file()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["results/tall"], "a comparison needs two runs or more"),
        (["results/tall", "results/untested"], "results/untested has not been tested yet: test its checkpoint"),
        (["results/tall", "results/long"], "there is no folder results/long"),
        (["results/tall", "data"], "data is neither a run nor a test nor a score"),
        (["results/tall", "results/tall"], "a test is given twice"),
        (["results/tall", "results/wide", "--test", "moles"], "results/tall has no test 'moles'; it has lesions-all"),
        (["results/tall", "results/wide", "--out", "results"], "results exists and is not the folder of a comparison"),
    ],
)
def test_what_a_user_can_do_wrong(runs, capsys, arguments, message):
    assert run(command.main, arguments) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""
    assert not (runs / "results/comparisons").exists()
