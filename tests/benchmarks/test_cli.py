import json

import pytest

from benchmarks.cli import main as bench
from mhsvm.cli.main import run


@pytest.fixture(autouse=True)
def _environment(monkeypatch):
    monkeypatch.delenv("MHSVM_BACKEND", raising=False)


def test_scan(workplace, capsys):
    options = ["--shapes", "1,4,9,2", "2,4,5,1", "--backends", "chunked", "reference", "--dtype", "bfloat16"]
    assert run(bench, ["scan", "--device", "cpu", "--seconds", "0.001", "--json", "a/b.json", *options]) == 0
    printed = capsys.readouterr().out
    report = json.loads((workplace / "a/b.json").read_text())
    assert (report["benchmark"], report["dtype"], len(report["results"])) == ("scan", "bfloat16", 8)
    assert "bfloat16; checked against reference in float64" in printed
    assert "a copy moves" in printed
    lines = [line.split() for line in printed.splitlines()]
    for row in report["results"]:
        sizes = ",".join(str(row["shape"][key]) for key in "bdlg")
        assert [sizes, row["backend"], row["phase"], f"{row['median_s'] * 1e3:.4g}", "ms"] in [
            line[:5] for line in lines
        ]
    assert "written: a/b.json" in printed
    assert max(map(len, printed.splitlines())) <= 110


def test_model(workplace, capsys):
    options = ["--models", "ultralight_vm_unet", "--batch", "1", "--size", "64", "--backends", "chunked"]
    assert run(bench, ["model", "--device", "cpu", "--seconds", "0.001", *options]) == 0
    printed = capsys.readouterr().out
    assert "batches of 1, 64 x 64 pixels" in printed
    (training, inference) = [line for line in printed.splitlines() if line.startswith("ultralight_vm_unet  ")]
    assert training.split()[1:5] == ["49,457", "chunked", "training", "step"]
    assert inference.split()[1:4] == ["49,457", "chunked", "inference"]


def test_train(workplace, capsys):
    options = ["--models", "ultralight_vm_unet", "--batch", "1", "--size", "32", "--images", "1", "--json", "a.json"]
    assert run(bench, ["train", "--device", "cpu", "--seconds", "0.001", *options]) == 0
    printed = capsys.readouterr().out
    assert "32 x 32 pixels; steps: auto" in printed
    rows = [line.split() for line in printed.splitlines() if line.startswith("ultralight_vm_unet  ")]
    assert [row[1:3] for row in rows] == [["training", "step"], ["inference", "1"], ["250", "epochs"]]
    assert json.loads((workplace / "a.json").read_text())["benchmark"] == "train"


def test_a_backend_that_was_left_out_is_reported_once(capsys):
    bench(["scan", "--device", "cpu", "--shapes", "1,2,3,1", "1,2,4,1", "--seconds", "0.001"])
    left_out = [line for line in capsys.readouterr().out.splitlines() if line.startswith("left out: mamba_ssm: it ")]
    assert len(left_out) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["scan", "--backends", "cudnn"], "backend: unknown name 'cudnn'"),
        (["scan", "--device", "tpu9"], "device 'tpu9' cannot be used here"),
        (["model", "--models", "resnet"], "unknown model 'resnet'"),
        (["train", "--models", "ultralight_vm_unet", "--step", "fast"], "train.step is one of auto, eager, graph"),
        (["model", "--dtype", "float16"], "networks are timed in float32 or bfloat16"),
    ],
)
def test_wrong_names_are_reported_without_a_traceback(capsys, options, message):
    assert run(bench, [options[0], "--device", "cpu", *options[1:], "--seconds", "0.001"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "the following arguments are required: scan|model|train"),
        (["layers"], "invalid choice: 'layers'"),
        (["scan", "--shapes", "1,2,3"], "takes four numbers b,d,l,g such as 32,384,4096,16, not '1,2,3'"),
        (["scan", "--shapes", "1,3,3,2"], "at least 1 and g divides d, got 1,3,3,2"),
        (["scan", "--dtype", "int8"], "invalid choice: 'int8'"),
        (["model", "--batch", "0"], "takes a whole number from 1 on, not '0'"),
        (["model", "--shapes", "1,2,3,1"], "unknown option '--shapes'"),
    ],
)
def test_options_that_make_no_sense(capsys, options, message):
    with pytest.raises(SystemExit, match="2"):
        bench(options)
    assert message in capsys.readouterr().err
