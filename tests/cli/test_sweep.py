"""A sweep from the command line: trained and tested for real once; the rest with what a training leaves."""

import json
import shutil
from pathlib import Path

import pytest

from mhsvm.cli import test as test_command
from mhsvm.cli import train as train_command
from mhsvm.cli.main import run
from mhsvm.cli.sweep import main
from mhsvm.sweep import schedule

CONFIG = """
run: {device: cpu}
data: {set: lesions, split: official}
train: {epochs: 1, batch_size: 4}
model:
  ultralight_vm_unet: {channels: "8,8,8,8,8,8", branches: 2, d_state: 2}
"""


@pytest.fixture
def in_process(monkeypatch):
    """Lets a sweep run its commands here, one after another, and notes them."""
    commands = []

    def run_here(tasks, places, *, retries, stop, inherited):
        for task in tasks:
            while (command := task.next_command()) is not None:
                commands.append(command.words[3:])
                name, *arguments = command.words[3:]
                if run({"train": train_command, "test": test_command}[name].main, arguments) != 0:
                    return {task.name: "failed"}
        return {}

    monkeypatch.setattr(schedule, "run_tasks", run_here)
    return commands


def test_a_sweep_trains_tests_and_sums_up_in_processes(config, capsys):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    folder = Path("results/small-sweep")
    printed = capsys.readouterr().out
    assert "1 runs in results/small-sweep, 0 of them done" in printed
    assert "seed42: training on cpu" in printed
    assert "seed42: testing on lesions on cpu" in printed
    assert (folder / "seed42/checkpoints/best.pt").is_file()
    assert "epoch 1/1" in (folder / "logs/seed42.txt").read_text()
    summary = json.loads((folder / "seed42/tests/lesions/summary.json").read_text())
    content = json.loads((folder / "table.json").read_text())
    assert content["runs"][0]["figures"]["dsc"] == summary["metrics"]["dsc"]
    assert content["rows"][0]["figures"]["dsc"]["mean"] == summary["metrics"]["dsc"]
    assert f"{summary['metrics']['dsc']:.4f}" in (folder / "table.txt").read_text()


def test_what_is_done_is_skipped_and_what_is_not_goes_on(config, make_set, in_process, capsys):
    make_set("others", num=4, first_id=100)
    arguments = ["--config", str(config), "--seeds", "0-1", "--test", "others"]
    assert main(arguments) == 0
    names = [(words[0], words[words.index("--d") + 1] if "--d" in words else "") for words in in_process]
    assert names == [("train", ""), ("test", "lesions"), ("test", "others")] * 2
    folder = Path("results/small-sweep")
    rows = json.loads((folder / "table.json").read_text())["rows"]
    assert [(row["set"], row["runs"]) for row in rows] == [("lesions", 2), ("others", 2)]

    in_process.clear()
    assert main(arguments) == 0
    assert in_process == []

    # a test that is gone is made again, a training that was left half-way is gone on with, one more seed is trained
    shutil.rmtree(folder / "seed0/tests/lesions")
    (folder / "seed1/metrics.jsonl").write_text("")
    arguments[3] = "0-2"
    assert main(arguments) == 0
    assert [words[:3] for words in in_process[:2]] == [
        ["test", "--d", "lesions"],
        ["train", "--resume", "results/small-sweep/seed1"],
    ]
    assert sum(words[0] == "train" for words in in_process) == 2
    assert "3 runs in results/small-sweep, 0 of them done" in capsys.readouterr().out


def test_tests_of_another_checkpoint_or_set_do_not_count(config, make_set, in_process):
    assert main(["--config", str(config)]) == 0
    summary = Path("results/small-sweep/seed42/tests/lesions/summary.json")
    for part, key in (("checkpoint", "sha256"), ("protocol", "set")):
        content = json.loads(summary.read_text())
        content[part][key] = "0" * 64 if key == "sha256" else {**content[part][key], "checksum": "0" * 64}
        assert content.pop("checksums")
        summary.write_text(json.dumps(content))
        in_process.clear()
        assert main(["--config", str(config)]) == 0
        assert [words[0] for words in in_process] == ["test"]


@pytest.mark.parametrize("content", ["{}", '{"schema": 2}', '{"schema": 2, "checkpoint": []}', "[1]", "{"])
def test_a_damaged_summary_is_named_with_the_way_out(config, in_process, capsys, content):
    assert main(["--config", str(config)]) == 0
    summary = Path("results/small-sweep/seed42/tests/lesions/summary.json")
    summary.write_text(content)
    assert run(main, ["--config", str(config)]) == 2
    message = capsys.readouterr().err
    assert str(summary) in message
    assert "remove its folder, and the test is made again" in message


def test_a_start_that_saved_nothing_is_made_again(config, in_process):
    folder = Path("results/small-sweep/seed42")
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    assert main(["--config", str(config)]) == 0
    assert (folder / "tests/lesions/summary.json").is_file()


def test_folders_of_the_users_are_left_alone(config, in_process, capsys):
    folder = Path("results/small-sweep/seed42")
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("")
    (folder / "notes.txt").write_text("mine")
    assert main(["--config", str(config)]) == 1
    assert (folder / "notes.txt").read_text() == "mine"
    error = capsys.readouterr().err
    assert "error: results/small-sweep/seed42 exists" in error
    assert "error: 1 of 1 runs have no result: seed42" in error


def test_every_fold_is_a_run(config, in_process):
    assert main(["--config", str(config), "--folds", "3", "data.split", "kfold-3-1"]) == 0
    content = json.loads(Path("results/small-sweep/table.json").read_text())
    assert [run["split"] for run in content["runs"]] == ["kfold-3-1-0", "kfold-3-1-1", "kfold-3-1-2"]
    assert content["rows"][0]["repetition"] == "fold"
    assert content["rows"][0]["figures"]["dsc"]["num"] == 3


def test_a_dry_run_lists_the_runs_and_makes_nothing(config, capsys):
    arguments = ["--config", str(config), "--seeds", "3,5", "--set", "train.batch_size=2,4", "--dry-run"]
    assert main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [f"batch_size={n}_seed{s}" for n in (2, 4) for s in (3, 5)]
    assert lines[5] == "4 runs, 1 side by side: on cpu"
    assert not Path("results").exists()


def test_a_folder_with_other_settings_is_refused(config, in_process, capsys):
    assert main(["--config", str(config)]) == 0
    assert run(main, ["--config", str(config), "train.batch_size", "2"]) == 2
    assert "results/small-sweep/seed42 was made with other settings than this sweep's" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--set", "train.epoch=1,2"], "the nearest is 'train.epochs'"),
        (["--set", "optimizer.name=AdamW,Lion"], "name=Lion_seed42: unknown optimizer 'Lion'; known: ASGD"),
        (
            ["--set", "train.precision=float32,half"],
            "precision=half_seed42: train.precision is one of float32, bfloat16",
        ),
        (["--set", "model.name=unet"], "unknown model 'unet'"),
        (["--folds", "5"], "--folds 5 goes with a split of 5 folds, and data.split is 'official'"),
        (["--folds", "2", "data.split", "kfold-2-1"], "k-fold needs k >= 3"),
        (["--set", "data.split=official,ratio-80-20-0-1"], "has no test part, which a sweep needs"),
        (["data.split", "wu-sorted"], "seed42: split 'wu-sorted' is defined for isic2017 and isic2018"),
        (["data.size", "64"], "seed42: data.size is 64 x 64 and data/lesions.h5 holds images of 32 x 32"),
        (["data.set", "nowhere"], "there is no data set 'nowhere'"),
        (["--test", "nowhere"], "there is no data set 'nowhere'"),
        (
            ["--test", "lesions"],
            "lesions; every run is tested on its own set, lesions, anyway: name each other set once with --test",
        ),
        (["--test", "classes"], "have num_classes 3, model.num_classes is 1: leave this set out"),
        (["run.device", "cuda:9"], "run.device cuda:9 does not exist:"),
        (["--set", "train.step=eager,graph"], "step=graph_seed42: train.step graph needs a GPU"),
        (
            ["--set", "optimizer.name=Lion,SDG", "--seeds", "0-3"],
            "error: 2 combinations of settings cannot be trained:\n  ",
        ),
        (["--epochs", "3"], "unknown option '--epochs'"),
        (["train.epochs"], "'train.epochs' at the end has no value"),
    ],
)
def test_bad_input_is_one_message_before_anything_starts(arguments, message, config, make_set, capsys):
    make_set("classes", num=4, num_classes=3)
    assert run(main, ["--config", str(config), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not Path("results").exists()


@pytest.mark.parametrize(("option", "value"), [("--seeds", "4-0"), ("--per-device", "0"), ("--folds", "x")])
def test_bad_options_are_named(option, value, config, capsys):
    with pytest.raises(SystemExit) as error:
        main(["--config", str(config), option, value])
    assert error.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err
