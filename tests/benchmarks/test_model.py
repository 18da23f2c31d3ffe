import dataclasses
import json

import pytest
import torch

from benchmarks.model import PHASES, bench_model
from benchmarks.model_check import ModelTruth
from tests.fixtures.networks import OWN_NETWORKS

CPU = torch.device("cpu")


def run(**options):
    settings = {"models": ["ultralight_vm_unet"], "batch": 2, "size": 32, "seconds": 0.001}
    return bench_model(device=CPU, **settings | options)


def test_report(set_scan_backends):
    set_scan_backends()
    report = json.loads(json.dumps(run()))
    assert (report["schema"], report["benchmark"], report["dtype"]) == (1, "model", "float32")
    assert (report["batch"], report["size"], report["skipped"]) == (2, 32, [])
    assert report["versions"]["torch"] == torch.__version__
    assert report["device"]["name"] == "cpu"
    assert [row["phase"] for row in report["results"]] == list(PHASES)
    for row in report["results"]:
        assert (row["model"], row["backend"], row["parameters"]) == ("ultralight_vm_unet", "chunked", 49457)
        lower, upper = row["quartiles_s"]
        assert 0 < lower <= row["median_s"] <= upper
        assert row["images_per_s"] == pytest.approx(2 / row["median_s"])
        assert row["peak_bytes"] is None
        output, gradient = row["errors"]
        assert (output, gradient.startswith("gradient of ")) == ("output", True)


def test_bfloat16(set_scan_backends):
    set_scan_backends()
    report = run(dtype=torch.bfloat16, backends=["chunked"])
    assert report["dtype"] == "bfloat16"
    # rounded to 8 bits, and not by more
    assert 1e-4 < report["results"][0]["errors"]["output"] < 2e-2


@pytest.mark.parametrize("name", OWN_NETWORKS)
def test_every_network_passes_its_check(name):
    errors = ModelTruth.of(name, dtype=torch.float32, device=CPU).errors_of("chunked")
    assert 0 < errors["output"] < 1e-5
    assert len(errors) > 50


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_wrong_backend_is_not_timed(set_scan_backends, wrong_gradient, dtype):
    set_scan_backends(wrong_gradient)
    message = "ultralight_vm_unet on backend 'wrong' is wrong and not timed: its gradient of .* against the reference"
    with pytest.raises(ValueError, match=message):
        run(dtype=dtype)


def test_gradients_that_are_a_little_off_everywhere_are_refused():
    """Each gradient is within the limit for a single one, and their average is not."""
    truth = ModelTruth.of("mhs_vm", dtype=torch.bfloat16, device=CPU)
    # Rounding depends on the machine, so only the check itself bounds the errors of a correct backend.
    errors = truth.errors_of("chunked")
    average = errors["average gradient"]
    closer = dataclasses.replace(truth, own_errors={**errors, "average gradient": average / 1.3})
    with pytest.raises(ValueError, match="its average gradient is off by"):
        closer.errors_of("chunked")
    within = dataclasses.replace(truth, own_errors={**errors, "average gradient": average / 1.2})
    assert within.errors_of("chunked") == pytest.approx(errors)
    # In 16 bits, too, a single gradient that is half of the correct one is refused.
    name = min((key for key in truth.own_errors if key.startswith("gradient of")), key=truth.own_errors.get)
    other = dataclasses.replace(truth, exact={**truth.exact, name: 2 * truth.exact[name]})
    with pytest.raises(ValueError, match=f"its {name} is off by 5.0e-01"):
        other.errors_of("chunked")


def test_a_backend_that_gives_nan_is_not_timed(set_scan_backends, not_a_number):
    set_scan_backends(not_a_number)
    with pytest.raises(
        ValueError, match="its output is off by nan of its norm against the reference; the limit is 1e-04"
    ):
        run()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"models": ["resnet"]}, "unknown model 'resnet'; known: "),
        ({"backends": ["cuda"]}, "backend: unknown name 'cuda'"),
        ({"dtype": torch.float16}, "networks are timed in float32 or bfloat16, not in torch.float16"),
        ({"size": 40}, "multiples of 32"),
    ],
)
def test_options_that_cannot_be_timed(set_scan_backends, options, message):
    set_scan_backends()
    with pytest.raises(ValueError, match=message):
        run(**options)
