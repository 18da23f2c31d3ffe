"""Training from the command line: what a run leaves, resuming after every kind of end, and bad input."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from mhsvm.cli import test as test_command
from mhsvm.cli.main import run
from mhsvm.cli.train import main
from mhsvm.config import load_config, read_value
from mhsvm.folder_lock import FolderLock
from mhsvm.models.checkpoint_file import read_checkpoint
from mhsvm.training.checkpoint import save_checkpoint

CONFIG = """
run: {device: cpu}
data: {set: lesions, split: official}
train: {epochs: 3, batch_size: 4}
model:
  ultralight_vm_unet: {channels: "8,8,8,8,8,8", branches: 2, d_state: 2}
"""

# torch 2.11 imports what it has deprecated when it compiles
compiles = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def assert_same_ends(assert_same):
    """A function that holds two runs to have the same weights, optimizer, positions and metrics, bit for bit."""

    def check(first: Path, second: Path) -> None:
        assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
        for name in ("last.pt", "best.pt"):
            contents = [read_checkpoint(folder / "checkpoints" / name) for folder in (first, second)]
            for content in contents:
                # the two runs differ in nothing but their names
                content["config"]["run"].pop("name")
            assert_same(*contents)

    return check


def test_a_run_leaves_what_it_promises(config, capsys):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    folder = Path("results/small")
    for name in ("config.yaml", "log.txt", "metrics.jsonl", "split.txt", "checkpoints/best.pt", "checkpoints/last.pt"):
        assert (folder / name).is_file(), name
    assert list((folder / "tensorboard").iterdir())
    assert load_config(folder / "config.yaml").train.epochs == 1
    checkpoint = torch.load(folder / "checkpoints/last.pt", weights_only=True)
    assert checkpoint["data"]["split"] == "official"
    assert len(checkpoint["data"]["train_ids"]) == 9
    assert len(checkpoint["data"]["split_hash"]) == len(checkpoint["data"]["checksum"]) == 64
    assert checkpoint["version"]["torch"] == torch.__version__
    printed = capsys.readouterr().out
    assert "lesions, split official" in printed
    assert "9 train, 3 val, 3 test" in printed
    assert "images: in memory" in printed
    assert "steps: eager" in printed
    assert re.search(r"epoch 1/1: lr 0\.001, train_loss .* \(best\); \d+ images/s\n", printed)
    assert printed.splitlines()[1] in (folder / "log.txt").read_text()


@pytest.mark.parametrize("num_steps", [3, 5], ids=["after one epoch", "in mid-epoch"])
def test_ctrl_c_then_resume_equals_a_straight_run(num_steps, config, signal_at_step, capsys, assert_same_ends):
    assert main(["--config", str(config), "run.name", "straight"]) == 0
    signal_at_step(num_steps, signal.SIGINT)
    assert main(["--config", str(config), "run.name", "broken"]) == 130
    assert "go on with: mhsvm train --resume results/broken" in capsys.readouterr().out
    assert main(["--resume", "results/broken"]) == 0
    assert "resuming results/broken" in capsys.readouterr().out
    assert_same_ends(Path("results/straight"), Path("results/broken"))


def test_another_number_of_threads_is_said(config, signal_at_step, capsys):
    threads = torch.get_num_threads()
    signal_at_step(2, signal.SIGTERM)
    assert main(["--config", str(config)]) == 143
    last = Path("results/small/checkpoints/last.pt")
    checkpoint = read_checkpoint(last)
    assert checkpoint["training"]["threads"] == threads
    checkpoint["training"]["threads"] = 64
    save_checkpoint(last, checkpoint)
    capsys.readouterr()
    assert main(["--resume", "results/small"]) == 0
    number = "1 thread" if threads == 1 else f"{threads} threads"
    line = f"resumed with {number} instead of 64: the last digits of losses may differ"
    assert line in capsys.readouterr().out
    # the next one has the same number
    assert main(["--resume", "results/small"]) == 0
    assert "instead of" not in capsys.readouterr().out


def test_sigterm_ends_cleanly(config, signal_at_step):
    signal_at_step(2, signal.SIGTERM)
    assert main(["--config", str(config)]) == 143
    assert read_checkpoint("results/small/checkpoints/last.pt")["training"]["progress"]["position"] == 8


def test_kill_9_then_resume_equals_a_straight_run(config, assert_same_ends):
    assert main(["--config", str(config), "run.name", "straight", "train.epochs", "20"]) == 0
    command = [sys.executable, "-c", "from mhsvm.cli.train import main; main()"]
    command += ["--config", str(config), "run.name", "broken", "train.epochs", "20"]
    metrics = Path("results/broken/metrics.jsonl")
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not (metrics.is_file() and metrics.read_text().count("\n") >= 3):
            time.sleep(0.01)
        process.kill()
    recorded = metrics.read_text().count("\n")
    done = read_checkpoint("results/broken/checkpoints/last.pt")["training"]["progress"]["epoch"]
    assert 3 <= recorded < 20
    assert recorded - 1 <= done <= recorded
    assert main(["--resume", "results/broken"]) == 0
    assert [json.loads(line)["epoch"] for line in metrics.read_text().splitlines()] == list(range(1, 21))
    assert_same_ends(Path("results/straight"), Path("results/broken"))


@pytest.fixture
def unsaved(config, monkeypatch):
    """The folder of a run whose disk was full before its first checkpoint."""

    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("mhsvm.training.checkpoint_writer.write_snapshot", fail)
        assert run(main, ["--config", str(config), "train.epochs", "2"]) == 1
    assert not list(Path("results/small/checkpoints").iterdir())
    return Path("results/small")


@pytest.mark.parametrize("how", ["config", "resume"])
def test_a_run_that_ended_before_its_first_checkpoint_starts_again(how, unsaved, config, assert_same_ends, capsys):
    assert main(["--config", str(config), "train.epochs", "2", "run.name", "straight"]) == 0
    arguments = ["--config", str(config), "train.epochs", "2"] if how == "config" else ["--resume", str(unsaved)]
    assert main(arguments) == 0
    again = "nothing was saved before: starting again from config.yaml"
    assert (again in capsys.readouterr().out) == (how == "resume")
    assert_same_ends(Path("results/straight"), unsaved)


def test_an_unsaved_start_with_another_file_is_left_as_it_is(unsaved, config, capsys):
    (unsaved / "notes.txt").write_text("mine")
    assert run(main, ["--config", str(config)]) == 2
    assert "results/small exists: go on with --resume" in capsys.readouterr().err
    assert run(main, ["--resume", str(unsaved)]) == 2
    assert "is not a run that can be resumed" in capsys.readouterr().err
    assert (unsaved / "notes.txt").read_text() == "mine"


def test_a_second_process_is_refused(config, capsys):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    for path in ("small", "results/small/checkpoints", "results/small/checkpoints/best.pt"):
        assert run(main, ["--resume", path]) == 2
        assert f"Did you mean {str(Path('results/small'))!r}?" in capsys.readouterr().err
    before = Path("results/small/metrics.jsonl").read_bytes()
    with FolderLock("a training") as lock:
        lock.hold("results/small")
        assert run(main, ["--resume", "results/small", "train.epochs", "2"]) == 2
        assert f"error: a training is running in results/small, process {os.getpid()} on" in capsys.readouterr().err
        # a start that has not saved yet
        Path("results/other").mkdir()
        lock.hold("results/other")
        assert run(main, ["--config", str(config), "run.name", "other"]) == 2
        assert "error: a training is running in results/other" in capsys.readouterr().err
    assert Path("results/small/metrics.jsonl").read_bytes() == before
    assert main(["--resume", "results/small", "train.epochs", "2"]) == 0


def test_a_run_that_is_done_stays_as_it_is(config):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    before = Path("results/small/metrics.jsonl").read_bytes()
    assert main(["--resume", "results/small"]) == 0
    assert Path("results/small/metrics.jsonl").read_bytes() == before


def test_options_come_in_any_order_and_values_may_be_negative(config):
    arguments = ["train.epochs", "1", "--config", str(config), "optimizer.AdamW.weight_decay", "-1e-3"]
    with pytest.raises(ValueError, match=r"optimizer\.AdamW\.weight_decay is at least 0, not -0\.001"):
        main(arguments)
    arguments[-2:] = ["optimizer.name", "SGD", "optimizer.SGD.lr", "1e-3"]
    assert main(arguments) == 0
    assert load_config("results/small/config.yaml").optimizer.SGD.lr == 1e-3


def test_resuming_takes_the_same_settings_and_refuses_others(config):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    assert main(["--resume", "results/small", "TRAIN.epochs", "1", "optimizer.AdamW.lr", "0.001"]) == 0
    with pytest.raises(ValueError, match=r"started with train\.batch_size 4; resuming cannot make it 5"):
        main(["--resume", "results/small", "train.batch_size", "5"])
    with pytest.raises(ValueError, match="^2 settings differ from those of the run:") as error:
        main(["--resume", "results/small", "run.seed=5", "optimizer.name", "SGD", "train.epochs=3"])
    assert "started with run.seed 42; resuming cannot make it 5" in str(error.value)
    assert load_config("results/small/config.yaml").train.epochs == 1


@pytest.mark.parametrize("written", [["train.epochs", "3"], ["TRAIN.EPOCHS=3"]], ids=["pair", "joined"])
def test_an_extended_run_equals_a_longer_one(written, config, capsys, assert_same_ends):
    assert main(["--config", str(config), "run.name", "straight"]) == 0
    assert main(["--config", str(config), "run.name", "extended", "train.epochs", "2"]) == 0
    capsys.readouterr()
    assert main(["--resume", "results/extended", *written]) == 0
    printed = capsys.readouterr().out
    assert "extended from 2 to 3 epochs, 2 of them done\n" in printed
    assert "epoch 3/3: " in printed
    assert "extended from 2 to 3 epochs" in Path("results/extended/log.txt").read_text()
    assert_same_ends(Path("results/straight"), Path("results/extended"))
    recorded = load_config("results/extended/config.yaml")
    assert recorded.train.epochs == 3
    assert recorded.run.name == "extended"
    assert main(["--resume", "results/extended"]) == 0
    assert "all 3 epochs are done; go on to more with: mhsvm train --resume results/extended train.epochs N" in (
        capsys.readouterr().out
    )


def test_an_unfinished_run_is_extended_or_shortened_but_not_below_its_epochs(config, signal_at_step, capsys):
    signal_at_step(5, signal.SIGINT)
    assert main(["--config", str(config)]) == 130
    before = Path("results/small/config.yaml").read_bytes()
    with pytest.raises(ValueError, match=r"train\.epochs is at least 1, not 0"):
        main(["--resume", "results/small", "train.epochs", "0"])
    assert Path("results/small/config.yaml").read_bytes() == before
    assert main(["--resume", "results/small", "train.epochs", "2"]) == 0
    assert "shortened from 3 to 2 epochs, 1 of them done" in capsys.readouterr().out
    lines = Path("results/small/metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2]
    with pytest.raises(ValueError, match=r"results/small has 2 epochs done: train\.epochs is at least 2 for it, not 1"):
        main(["--resume", "results/small", "train.epochs", "1"])


def test_an_existing_run_is_not_overwritten(config):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    with pytest.raises(FileExistsError, match="results/small exists: go on with `resume` results/small, or choose"):
        main(["--config", str(config)])


def test_a_set_or_split_that_changed_is_refused(config, make_set):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    split = Path("results/small/split.txt")
    text = split.read_text()
    split.write_text("".join(line for line in text.splitlines(keepends=True)[1:]).replace("val", "train"))
    with pytest.raises(ValueError, match=r"the run's split\.txt was changed"):
        main(["--resume", "results/small"])
    split.write_text(text)
    Path("data/lesions.h5").unlink()
    make_set(num=15, first_id=100)
    with pytest.raises(ValueError, match="is not the set that this run was started with"):
        main(["--resume", "results/small"])


@pytest.mark.parametrize(
    ("device", "mode"),
    [
        ("cpu", "eager"),
        pytest.param("cuda", "eager", marks=pytest.mark.gpu),
        pytest.param("cuda", "graph", marks=pytest.mark.gpu),
        pytest.param("cuda", "compile", marks=[pytest.mark.gpu, compiles]),
    ],
)
def test_a_profile_tells_where_the_time_goes_and_leaves_nothing(device, mode, config, capsys):
    assert main(["--config", str(config), "--profile", "run.device", device, "train.step", mode]) == 0
    printed = capsys.readouterr().out
    assert "steps: " in printed
    shares = re.findall(r"^(\w+) +[\d.]+ s(?: +[\d.]+ ms)? +([\d.]+)%$", printed, re.M)
    parts = ["data", "forward", "backward", "optimizer", "idle", "evaluation", "checkpoint"]
    assert [name for name, _ in shares] == parts
    assert sum(float(share) for _, share in shares) == pytest.approx(100, abs=0.5)
    assert re.search(r"^training [\d.]+ images/s in 3 steps an epoch, validation [\d.]+ images/s$", printed, re.M)
    assert re.search(r"^memory: at most \d+\.\d\d GiB$", printed, re.M)
    assert ("CUDA graphs" in printed.partition("each stage")[2]) == (device == "cuda")
    assert not Path("results").exists()


def test_profiling_a_run_leaves_it_as_it_is(config):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    before = {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()}
    assert main(["--config", str(config), "--profile"]) == 0
    assert main(["--resume", "results/small", "--profile"]) == 0
    assert {path: path.read_bytes() for path in Path("results").rglob("*") if path.is_file()} == before


def test_a_profile_of_a_diverging_training_is_one_message(config, capsys):
    assert main(["--config", str(config), "--profile", "optimizer.AdamW.lr", "1e30"]) == 1
    # the first process that uses a kernel says that it compiles it
    assert capsys.readouterr().err.splitlines()[-1] == "error: a step is not finite: its loss is nan"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either --config or --resume"),
        (["--config", "small.yaml", "--resume", "results/small"], "give either --config or --resume"),
        (["--config", "small.yaml", "--epochs", "3"], "unknown option '--epochs'"),
        (["--config", "small.yaml", "train.epoch", "3"], "the nearest is 'train.epochs'"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--resume", "results/nowhere", "--profile"], "is not a run that can be resumed"),
        (["--config", "small.yaml", "--profile", "train.step", "graph"], "train.step graph needs a GPU"),
        (["--resume", "results/nowhere"], "is not a run that can be resumed"),
        (["--config", "small.yaml", "data.set", "isic2018"], "isic2018"),
        (["--config", "small.yaml", "data.split", "wu-sorted"], "wu-sorted"),
        (["--config", "small.yaml", "data.split", "all"], "has no train part"),
        (
            ["--config", "small.yaml", "data.size", "64"],
            "data.size is 64 x 64 and data/lesions.h5 holds images of 32",
        ),
        (["--config", "small.yaml", "model.name", "unet"], "unknown model 'unet'; known: "),
        (["--config", "small.yaml", "model.num_classes", "3"], "set model.num_classes 1"),
        (["--config", "small.yaml", "loss.name", "ce_dice"], "take 'bce_dice'"),
        (["--config", "small.yaml", "loss.name", "focal"], "unknown loss 'focal'; known: bce_dice, ce_dice"),
        (["--config", "small.yaml", "optimizer.name", "Lion"], "unknown optimizer 'Lion'; known: ASGD"),
        (["--config", "small.yaml", "schedule.name", "Poly"], "unknown schedule 'Poly'; known: Cosine"),
        (["--config", "small.yaml", "data.augmentation", "cutmix"], "unknown augmentation 'cutmix'; known: none"),
        (["--config", "small.yaml", "data.normalization", "zscore"], "unknown normalization 'zscore'; known: minmax"),
        (["--config", "small.yaml", "run.device", "cuda:9"], "device 'cuda:9' cannot be used here"),
        (
            ["--config", "small.yaml", "run.device", "gpu"],
            "device 'gpu' cannot be used here: it is none that torch knows",
        ),
        (["--config", "small.yaml", "model.weights", "nowhere.pt"], "nowhere.pt"),
        (["--config", "small.yaml", "model.weights", "isic2017-wu-sort"], "Did you mean 'isic2017-wu-sorted'?"),
        (["--config", "small.yaml", "data.split", "oficial"], "Did you mean 'official'?"),
        (
            ["--config", "small.yaml", "data.set", "sets/none.h5"],
            "'sets/none.h5': no such path, and no data/sets/none.h5",
        ),
        (["--config", "small.yaml", "train.precision", "half"], "train.precision is one of float32, bfloat16"),
        (["--config", "small.yaml", "train.step", "fast"], "train.step is one of auto, eager, graph, compile, not"),
        (["--config", "small.yaml", "train.step", "graph"], "train.step graph needs a GPU"),
        (["--config", "small.yaml", "data.placement", "gpu"], "data.placement is one of auto, device, stream, not"),
        (["--config", "small.yaml", "train.ema_decay", "1"], "train.ema_decay is less than 1, not 1.0"),
        (["--config", "small.yaml", "train.ema_decay", "-1"], "train.ema_decay is at least 0, not -1.0"),
        (["--config", "small.yaml", "train.batch_size", "0"], "train.batch_size is at least 1, not 0"),
        (["--config", "small.yaml", "train.epochs", "-1"], "train.epochs is at least 1, not -1"),
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(arguments, message, config, capsys):
    assert run(main, arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
    assert not Path("results").exists()


def test_the_size_of_the_set_is_shown_and_recorded(config, capsys):
    assert main(["--config", str(config), "train.epochs", "1"]) == 0
    shown = "lesions (data/lesions.h5): 15 images of 32 x 32 (height x width), lesion masks"
    assert shown in capsys.readouterr().out
    assert read_value("results/small/config.yaml", "data.size") == 32
    assert read_checkpoint("results/small/checkpoints/last.pt")["config"]["data"]["size"] == 32
    assert run(main, ["--resume", "results/small", "data.size", "64"]) == 2
    assert "results/small was started with data.size 32" in capsys.readouterr().err


def test_a_run_that_recorded_another_size_goes_on(config):
    """Older versions recorded the default of 256 for prepared sets of any size."""
    assert main(["--config", str(config), "train.epochs", "2"]) == 0
    last = Path("results/small/checkpoints/last.pt")
    content = read_checkpoint(last)
    content["config"]["data"]["size"] = 256
    content["training"]["progress"]["epoch"] = 1
    save_checkpoint(last, content)
    assert main(["--resume", "results/small"]) == 0
    assert read_checkpoint(last)["training"]["progress"]["epoch"] == 2
    assert test_command.main(["--d", "lesions", "--p", str(last), "--device", "cpu", "--no-boundary"]) == 0


def test_a_size_that_the_network_cannot_take_leaves_nothing(workplace, make_set, config, capsys):
    make_set(num=15, side=40)
    for _ in range(2):
        assert run(main, ["--config", "small.yaml"]) == 2
        assert "multiples of 32, and those of data/lesions.h5 are 40 x 40" in capsys.readouterr().err
        assert not Path("results").exists()


def test_several_wrong_settings_are_one_message(config, capsys):
    assert run(main, ["--config", "small.yaml", "loss.name", "ce_dice", "data.set=lesion", "schedule.name=Step"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: 3 reasons why this training cannot start:\n  loss 'ce_dice' does not fit")
    assert not Path("results").exists()


def test_several_classes_from_masks_to_checkpoint(workplace, make_set):
    make_set("classes", num=15, num_classes=3)
    path = workplace / "classes.yaml"
    path.write_text(CONFIG.replace("set: lesions", "set: classes"))
    settings = ["model.num_classes", "3", "loss.name", "ce_dice", "train.epochs", "1"]
    assert main(["--config", str(path), *settings]) == 0
    line = json.loads(Path("results/classes/metrics.jsonl").read_text())
    assert 0 <= line["val_miou"] <= 1
    assert read_checkpoint("results/classes/checkpoints/last.pt")["model"]["head.weight"].shape[0] == 3
