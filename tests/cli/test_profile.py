"""`mhsvm profile`: what is counted is printed, what is timed is named, and every message."""

import json

import pytest

from mhsvm.cli import profile as command
from mhsvm.cli.main import run

SMALL = ("--size", "64", "--seconds", "0", "--device", "cpu")


def test_counts_and_timings(workplace, capsys):
    assert command.main(["--model", "ultralight_vm_unet", *SMALL, "--json", "profile.json"]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ultralight_vm_unet, images of 3 x 64 x 64\n")
    lines = printed.splitlines()
    assert lines[2].split() == ["part", "parameters", "layers", "mixers", "scan"]
    # norms multiply nothing: a line for all of them
    assert [line.split()[1] for line in lines if line.startswith("encoder_norms")] == ["256"]
    assert next(line for line in lines if line.startswith("all ")).split()[1] == "49,457"
    assert sum("eager" in line for line in lines) == 1
    report = json.loads((workplace / "profile.json").read_text())
    assert report["shape"] == [1, 3, 64, 64]
    assert report["complexity"]["parameters"] == 49_457
    (timing,) = report["timings"]
    assert (timing["device"], timing["how"]) == ("cpu", "eager")
    assert timing["peak_bytes"] == report["complexity"]["tensor_bytes"]
    assert timing["median_s"] > 0


def test_the_papers_counting(workplace, capsys):
    assert command.main(["--model", "ultralight_vm_unet", "--count-only"]) == 0
    printed = capsys.readouterr().out
    assert "MACs as the papers count  0.060 G" in printed
    assert "MACs without the scan     0.066 G" in printed
    assert "eager" not in printed


@pytest.mark.parametrize(("branches", "parameters"), [("1", "136,269"), ("2", "69,589"), ("4", "49,457")])
def test_settings_follow_behind(workplace, capsys, branches, parameters):
    settings = ("model.ultralight_vm_unet.branches", branches)
    assert command.main(["--model", "ultralight_vm_unet", "--count-only", "--size", "64", *settings]) == 0
    assert f"parameters                {parameters}\n" in capsys.readouterr().out


def test_a_config(workplace, capsys):
    (workplace / "own.yaml").write_text("model: {name: mhs_vm, in_channels: 1, mhs_vm: {patterns: [C, X, S]}}\n")
    assert command.main(["--config", "own.yaml", "--count-only", "--size", "64x96"]) == 0
    assert capsys.readouterr().out.startswith("mhs_vm, images of 1 x 64 x 96\n")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give either --model or --config; usage: mhsvm profile"),
        (["--model", "mhs_vm", "--config", "a.yaml"], "give either --model or --config"),
        (["--model", "mhs_mv"], "unknown model 'mhs_mv'; known: "),
        (["--model", "mhs_vm", "--fast"], "unknown option '--fast'"),
        (["--model", "mhs_vm", "model.branches", "4"], "unknown setting 'model.branches'"),
        (["--model", "mhs_vm", "--size", "100"], "height and width must be multiples of 32; received 100 x 100"),
        (["--model", "mhs_vm", "--device", "tpu9"], "device 'tpu9' cannot be used here"),
    ],
)
def test_what_a_user_can_do_wrong(workplace, capsys, options, message):
    assert run(command.main, options) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(f"error: {message}")
    assert captured.out == ""


@pytest.mark.gpu
def test_a_gpu_is_timed_with_and_without_a_graph(workplace):
    options = ["--model", "ultralight_vm_unet", "--size", "64", "--seconds", "0", "--json", "profile.json"]
    assert command.main(options) == 0
    timings = json.loads((workplace / "profile.json").read_text())["timings"]
    assert [(row["device"], row["how"]) for row in timings] == [
        ("cpu", "eager"),
        ("cuda", "eager"),
        ("cuda", "CUDA graph"),
    ]
    assert all(row["peak_bytes"] > 4 * 49_457 for row in timings)
