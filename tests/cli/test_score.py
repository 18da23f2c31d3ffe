"""`mhsvm score`: the table, the files it leaves, and what is refused."""

import csv
import json
import re

import numpy as np
import pytest
from PIL import Image

from mhsvm.cli import score as command
from mhsvm.cli.main import run


@pytest.fixture
def masks(workplace):
    """Three predictions beside three truths; one truth is empty, one prediction is smaller."""
    truth = np.zeros((24, 32), np.uint8)
    truth[4:16, 8:20] = 255
    pred = np.roll(truth, 4, axis=1)
    pairs = {"a": (pred, truth), "b": (pred, np.zeros_like(truth)), "c": (pred[::2, ::2], truth)}
    for name, (of_pred, of_truth) in pairs.items():
        for path, array in ((f"out/masks/{name}.png", of_pred), (f"truth/{name}_segmentation.png", of_truth)):
            (workplace / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(array).save(workplace / path)
    return workplace


def test_table_summary_and_cases(masks, capsys):
    assert command.main(["--pred", "out", "--truth", "truth"]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = r"3 masks against truth, measured at (\d+ x \d+|\d sizes from .*) \(height x width\), lesion masks"
    assert re.fullmatch(shown, lines[0])
    assert lines[1] == "1 of the predictions had another size, and were resized"
    assert lines[2].split() == ["pooled", "95%", "interval", "per", "image", "95%", "interval"]
    # 96 of 144 pixels found in a and c, 48 and 144 too much
    assert lines[3].split()[:2] == ["miou", f"{192 / (192 + 96 + 240):.4f}"]
    assert "images without hd95 and assd, because prediction or target is empty: 1" in lines
    assert lines[-1].endswith("out-scores")
    with (masks / "out-scores/cases.csv").open() as file:
        rows = {row["id"]: row for row in csv.DictReader(file)}
    assert list(rows) == ["a", "b", "c"]
    assert (rows["a"]["height"], rows["a"]["width"], rows["a"]["tp"]) == ("24", "32", "96")
    assert (float(rows["a"]["hd95"]), rows["b"]["hd95"], rows["b"]["assd"]) == (4.0, "", "")
    summary = json.loads((masks / "out-scores/summary.json").read_text())
    assert summary["metrics"]["miou"] == 192 / (192 + 96 + 240)
    low, high = summary["intervals"]["limits"]["miou_per_image"]
    assert low < summary["metrics"]["miou_per_image"] < high
    assert summary["boundary"] == {"unit": "pixels", "images_without_outline": 1}
    assert summary["confusion_matrix"] == [[3 * 24 * 32 - 288 - 240, 240], [96, 192]]
    assert summary["protocol"] == {
        "pred": ["out"],
        "truth": ["truth"],
        "num_images": 3,
        "size": "the truth's",
        "resized": 1,
        "only_predicted": 0,
        "only_true": 0,
        "threshold": None,
        "greys": [],
    }


def test_options(masks, capsys):
    (masks / "out/masks/a.png").unlink()
    Image.fromarray(np.arange(24 * 32, dtype=np.uint8).reshape(24, 32)).save(masks / "out/masks/d.png")
    options = ["--common", "--size", "12x16", "--no-boundary", "--threshold", "0.5", "--out", "mine"]
    assert command.main(["--pred", "out", "--truth", "truth", *options]) == 0
    printed = capsys.readouterr().out
    assert "left out: 1 predictions without a target, 1 targets without a prediction" in printed
    assert "hd95" not in printed
    summary = json.loads((masks / "mine/summary.json").read_text())
    assert (summary["protocol"]["size"], summary["protocol"]["num_images"]) == ([12, 16], 2)
    assert not {"boundary", "arguments"} & summary.keys()
    assert (masks / "mine/cases.csv").read_text().startswith("id,height,width,tp,fp,fn,tn,jaccard,dice,accuracy,")


def test_scores_replace_scores_and_nothing_else(masks):
    arguments = ["--pred", "out", "--truth", "truth", "--no-boundary", "--out", "mine"]
    assert command.main(arguments) == 0
    before = (masks / "mine/summary.json").read_bytes()
    assert command.main(arguments) == 0
    assert (masks / "mine/summary.json").read_bytes() == before
    (masks / "mine/predictions.h5").touch()
    with pytest.raises(FileExistsError, match=r"mine holds more than a score, predictions\.h5"):
        command.main(arguments)


def test_several_classes(workplace, capsys):
    labels = np.repeat(np.array([[0, 1, 2, 255]], np.uint8), 4, axis=0)
    for name, array in (("pred/a.png", labels % 255), ("truth/a.png", labels)):
        (workplace / name).parent.mkdir()
        Image.fromarray(array).save(workplace / name)
    assert command.main(["--pred", "pred", "--truth", "truth", "--num-classes", "3", "--out", "mine"]) == 0
    printed = capsys.readouterr().out
    assert "class 1: miou 1.0000, dsc 1.0000, dsc_per_image 1.0000" in printed
    summary = json.loads((workplace / "mine/summary.json").read_text())
    assert list(summary["classes"]) == ["1", "2"]
    assert (workplace / "mine/cases.csv").read_text().splitlines()[1].startswith("a,1,4,4,4,0,0,8,")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--pred", "absent"], "no such file or folder: 1\n    absent\n    fix: check the path"),
        (["--threshold", "128"], "in (0, 1]; received 128. Level 128 is 0.5"),
        (["--pred", "data"], "no mask: 1\n    predictions: looked for BMP, PNG"),
        (["--truth", "out/masks/a.png"], "prediction without a target: 2\n    b: out/masks/b.png"),
        (["--out", "truth"], "truth exists and is not the folder of a score"),
    ],
)
def test_what_a_user_can_do_wrong(masks, capsys, options, message):
    (masks / "truth/d_segmentation.png").write_bytes(b"")
    assert run(command.main, ["--pred", "out", "--truth", "truth", *options]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert captured.out == ""
    assert not (masks / "out-scores").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--num-classes", "0"], "argument --num-classes: takes a whole number from 1 to 255, not '0'"),
        (["--size", "big"], "a size is written 256 or 192x256"),
        (["--thresh", "0.5"], "unknown option '--thresh'. Did you mean '--threshold'?"),
    ],
)
def test_options_are_spelt_out(capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        command.main(["--pred", "a", "--truth", "b", *options])
    assert message in capsys.readouterr().err


def test_arguments_of_metrics(masks, capsys):
    values = {}
    for tolerance in ("0", "50"):
        options = ["--metric", f"nsd.tolerance={tolerance}", "--out", "mine"]
        assert command.main(["--pred", "out", "--truth", "truth", *options]) == 0
        summary = json.loads((masks / "mine/summary.json").read_text())
        assert summary["arguments"]["nsd"]["tolerance"] == float(tolerance)
        values[tolerance] = summary["metrics"]["nsd_per_image"]
    assert values["0"] < values["50"]
    assert "nsd with tolerance 50, fraction 0.005" in capsys.readouterr().out
    with pytest.raises(ValueError, match="unknown metric 'nsf'"):
        command.main(["--pred", "out", "--truth", "truth", "--metric", "nsf.tolerance=1"])


def test_probabilities_are_ranked(workplace, capsys):
    for name, levels in (("pred/a.png", [[10, 200, 90, 30]]), ("truth/a.png", [[0, 255, 0, 255]])):
        (workplace / name).parent.mkdir()
        Image.fromarray(np.array(levels, np.uint8)).save(workplace / name)
    assert command.main(["--pred", "pred", "--truth", "truth", "--threshold", "0.5", "--out", "mine"]) == 0
    assert json.loads((workplace / "mine/summary.json").read_text())["ranking"]["auc"] == 0.75
    line = "over the pixels of all images: auc 0.7500 (0.7500-0.7500), average_precision 0.8333 (0.8333-0.8333)"
    assert line in capsys.readouterr().out.splitlines()
