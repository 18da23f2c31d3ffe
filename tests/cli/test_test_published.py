"""`mhsvm test` of published files and bare weights."""

import pytest
import torch

from mhsvm.models import create_model
from tests.fixtures.tested import run_test, summary_in


@pytest.mark.parametrize(("name", "split", "num"), [("isic2018", "vmunet-7-3", 4), ("ph2", "all", 15)])
def test_a_published_file(workplace, make_set, make_published, capsys, name, split, num):
    make_set(name)
    run_test(make_published("ultralight_vm_unet", d_state=2), data=name)
    content = summary_in(workplace / f"results/published/tests/{name}-{split}")
    assert (content["protocol"]["num_images"], content["protocol"]["trained_on"]) == (num, None)
    assert content["checkpoint"]["published"] is True
    printed = capsys.readouterr().out
    assert f"{num} test images; how many of them the checkpoint was trained on: unknown" in printed
    assert "gate" not in printed


def test_a_published_file_measures_like_ours(workplace, make_set, make_checkpoint, make_published):
    ours = make_checkpoint(make_set())
    published = make_published("ultralight_vm_unet", d_state=2)
    torch.save({"model_state_dict": torch.load(published, weights_only=True), "epoch": 3}, published)
    for checkpoint, out in ((ours, "a"), (published, "b")):
        run_test(checkpoint, "--split", "all", "--out", out)
    assert summary_in(workplace / "a")["metrics"] == summary_in(workplace / "b")["metrics"]


def test_published_heads_and_gate_threshold(workplace, make_set, make_published_mhs_vm, capsys):
    make_set("ph2", num=4)
    checkpoint = make_published_mhs_vm()
    note = "note: the file does not hold its gate threshold: taking its authors' 0.4"
    run_test(checkpoint, "--h", "3", data="ph2")
    printed = capsys.readouterr().out
    assert note in printed
    assert "mhs_vm with 3 heads" in printed
    folder = workplace / "results/published/tests/ph2-all"
    assert summary_in(folder)["model"]["gate_threshold"] == 0.4
    run_test(checkpoint, "--gate-threshold", "0.1", data="ph2")
    assert note not in capsys.readouterr().out
    assert summary_in(folder)["model"]["gate_threshold"] == 0.1
    with pytest.raises(ValueError, match=r"has 3 heads, not 4: they scan along C, X, S\. Give `heads` 3"):
        run_test(checkpoint, "--h", "4", data="ph2")


def test_a_bare_state_dict_needs_the_name_of_its_network(workplace, make_set, capsys):
    make_set()
    torch.save(create_model("ultralight_vm_unet").state_dict(), "bare.pt")
    with pytest.raises(ValueError, match="these are the names of this package, .* Name the model"):
        run_test("bare.pt")
    run_test("bare.pt", "--model", "ultralight_vm_unet")
    assert "bare.pt: ultralight_vm_unet, 49457 parameters" in capsys.readouterr().out
    with pytest.raises(ValueError, match="the file holds weights of ultralight_vm_unet"):
        run_test("bare.pt", "--model", "vm_unet")


def test_another_published_network_than_the_one_asked_for(make_set, make_published):
    make_set()
    with pytest.raises(ValueError, match="the file holds the weights of ultralight_vm_unet, not of mhs_vm"):
        run_test(make_published("ultralight_vm_unet", d_state=2), "--model", "mhs_vm")
