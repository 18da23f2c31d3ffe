"""The benchmark of training: checked before it is timed."""

import json

import pytest
import torch

from benchmarks import fresh, model_check, train
from benchmarks.model_check import WrongNetwork
from benchmarks.train import bench_train
from mhsvm.training.step import TrainStep

CPU = torch.device("cpu")
NETWORK = "ultralight_vm_unet"


def run(**options):
    settings = {"models": [NETWORK], "batch": 2, "size": 32, "num_images": 5, "seconds": 0.001}
    return bench_train(device=CPU, **settings | options)


def test_report(set_scan_backends):
    set_scan_backends()
    report = json.loads(json.dumps(run()))
    assert (report["schema"], report["benchmark"], report["mode"], report["size"]) == (1, "train", "auto", 32)
    rows = report["results"]
    found = [(row["model"], row["phase"], row["batch"]) for row in rows]
    phases = [("training step", 2), ("inference", 1), ("inference", 2), ("250 epochs", 2)]
    assert found == [(NETWORK, *phase) for phase in phases]
    for row in rows[:3]:
        lower, upper = row["quartiles_s"]
        assert 0 < lower <= row["median_s"] <= upper
        assert row["images_per_s"] == pytest.approx(row["batch"] / row["median_s"])
    epochs = rows[3]
    assert epochs["images"] == 5
    assert epochs["median_s"] == pytest.approx(epochs["first_epoch_s"] + 249 * epochs["epoch_s"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_network_is_named_and_not_timed(set_scan_backends, wrong_gradient, dtype):
    set_scan_backends(wrong_gradient)
    report = run(dtype=dtype)
    assert report["results"] == []
    (wrong,) = report["wrong"]
    assert wrong["model"] == NETWORK
    assert "is wrong and not timed: its gradient of" in wrong["reason"]


def test_the_others_are_timed_beside_a_wrong_network(set_scan_backends, monkeypatch):
    set_scan_backends()
    check = train.check_network

    def refuse(name, backends, **settings):
        if name == "vm_unet":
            raise WrongNetwork("vm_unet is wrong")
        return check(name, backends, **settings)

    monkeypatch.setattr(train, "check_network", refuse)
    report = run(models=["vm_unet", NETWORK])
    assert report["wrong"] == [{"model": "vm_unet", "reason": "vm_unet is wrong"}]
    assert {row["model"] for row in report["results"]} == {NETWORK}


@pytest.fixture
def without_network_check(monkeypatch):
    """Skip the check of networks, which takes longest and has tests of its own."""
    monkeypatch.setattr(train, "check_network", lambda *_, **__: {})


class FaultyStep(TrainStep):
    """Loses a thousandth unless it is eager."""

    def __init__(self, *args, mode, **settings):
        super().__init__(*args, mode="eager", **settings)
        self.factor = 1.0 if mode == "eager" else 0.999

    def compute_loss(self, *batch):
        return self.factor * super().compute_loss(*batch)


def test_a_step_unlike_the_eager_one_is_not_timed(set_scan_backends, without_network_check, monkeypatch):
    set_scan_backends()
    monkeypatch.setattr(fresh, "TrainStep", FaultyStep)
    (wrong,) = run()["wrong"]
    assert wrong["reason"].startswith(f"the training step of {NETWORK}, mode auto, is wrong and not timed: its loss 1")


def test_a_step_may_differ_from_the_eager_one_by_rounding(set_scan_backends, without_network_check, monkeypatch):
    set_scan_backends()
    monkeypatch.setattr(fresh, "TrainStep", FaultyStep)
    # as if float32 had three digits
    monkeypatch.setitem(model_check._PERTURBATION, torch.float32, 1e-2)
    report = run()
    assert not report["wrong"]
    assert "training step" in {row["phase"] for row in report["results"]}


def test_factors_of_float32_are_not_rounded(set_scan_backends, without_network_check, monkeypatch):
    set_scan_backends()
    seen = []

    class Seeing(TrainStep):
        def compute_loss(self, *batch):
            seen.append((torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32))
            return super().compute_loss(*batch)

    monkeypatch.setattr(fresh, "TrainStep", Seeing)
    before = torch.backends.cudnn.allow_tf32
    run()
    assert set(seen) == {(False, False)}
    assert torch.backends.cudnn.allow_tf32 == before


def test_an_unknown_name_is_reported_before_anything_is_timed(monkeypatch):
    monkeypatch.setattr(train, "check_network", lambda *_, **__: pytest.fail("a network was checked"))
    with pytest.raises(ValueError, match="unknown model 'resnet'"):
        run(models=[NETWORK, "resnet"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["resnet"]}, "unknown model 'resnet'; known: "),
        ({"dtype": torch.float16}, "networks are timed in float32 or bfloat16, not in torch.float16"),
        ({"size": 40}, "multiples of 32"),
        ({"mode": "graph"}, "train.step graph needs a GPU"),
    ],
)
def test_options_that_cannot_be_timed(set_scan_backends, options, message):
    set_scan_backends()
    with pytest.raises(ValueError, match=message):
        run(**options)
